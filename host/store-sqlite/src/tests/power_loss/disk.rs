//! A disk that forgets what was not synced: a VFS of SQLite that records writes, truncations and syncs, and can say what would be on the disk
//! if the power failed now.
//!
//! What was written before the last sync of its file is kept. Of what came after it, any sectors may be there, in any order. A file whose first
//! sync is to come does not exist. A removal is kept at once, since SQLite syncs the directory when that matters.
//!
//! Files are opened by SQLite's own VFS; only their methods that change something are replaced, in a copy of the table of methods. The VFS is the
//! default one of its process from the first [`Disk::install`] on, and records the files of one directory.
#![expect(unsafe_code, reason = "a VFS is a table of C functions")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use libsqlite3_sys as sqlite;

/// Unit that a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// Kinds of files whose content is kept.
const RECORDED: c_int = sqlite::SQLITE_OPEN_MAIN_DB | sqlite::SQLITE_OPEN_WAL | sqlite::SQLITE_OPEN_MAIN_JOURNAL;

/// The disk whose files are recorded.
static DISK: Mutex<Option<Disk>> = Mutex::new(None);

/// Open files whose methods are replaced, by the address of SQLite's structure.
static OPEN: LazyLock<Mutex<HashMap<usize, Open>>> = LazyLock::new(Mutex::default);

/// What is on the disk, and what may be.
pub(super) struct Disk {
    /// Directory of the files.
    directory: PathBuf,
    /// Files by their paths.
    files: BTreeMap<PathBuf, File>,
    /// Number of changes so far.
    changes: u64,
    /// Called after each change, with the disk.
    observer: Option<Observer>,
}

type Observer = Box<dyn FnMut(&Disk) + Send>;

#[derive(Default)]
struct File {
    /// Content at the last sync; `None` before the first one.
    synced: Option<Vec<u8>>,
    /// Changes since then.
    unsynced: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone)]
struct Open {
    path: PathBuf,
    methods: &'static sqlite::sqlite3_io_methods,
}

/// Part of the unsynced sectors that a power failure leaves on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsynced {
    /// None of them.
    Lost,
    /// Each of them or not, at random.
    Mixed,
    /// All of them: the program was killed, and the power stayed on.
    Kept,
}

/// Content of the files after a power failure, by name.
pub(super) type Image = BTreeMap<String, Vec<u8>>;

impl Disk {
    /// Records the files of a directory from now on, and of no other one. `observer` is called after each change.
    pub(super) fn install(directory: &Path, observer: impl FnMut(&Self) + Send + 'static) {
        let directory = directory.canonicalize().unwrap();
        let observer: Option<Observer> = Some(Box::new(observer));
        *disk() = Some(Self { directory, files: BTreeMap::new(), changes: 0, observer });
        LazyLock::force(&VFS);
    }

    /// Returns the number of changes of all files so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns what is on the disk if the power fails now. `coin` decides about each sector of [`Unsynced::Mixed`].
    pub(super) fn after_power_loss(&self, unsynced: Unsynced, mut coin: impl FnMut() -> bool) -> Image {
        let mut keeps = || match unsynced {
            Unsynced::Lost => false,
            Unsynced::Mixed => coin(),
            Unsynced::Kept => true,
        };
        let mut image = Image::new();
        for (path, file) in &self.files {
            let Some(mut bytes) = file.synced.clone().or_else(|| keeps().then(Vec::new)) else { continue };
            for change in &file.unsynced {
                change.apply(&mut bytes, &mut keeps);
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            image.insert(name, bytes);
        }
        image
    }

    /// Changes a file, unless it is of another directory.
    fn change(&mut self, path: &Path, change: impl FnOnce(&mut File)) {
        if path.starts_with(&self.directory) {
            change(self.files.entry(path.to_owned()).or_default());
            self.observe();
        }
    }

    fn observe(&mut self) {
        self.changes += 1;
        if let Some(mut observer) = self.observer.take() {
            observer(self);
            self.observer = Some(observer);
        }
    }
}

impl File {
    fn sync(&mut self) {
        let synced = self.synced.get_or_insert_default();
        for change in self.unsynced.drain(..) {
            change.apply(synced, &mut || true);
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, keeps: &mut impl FnMut() -> bool) {
        match self {
            Self::Truncate(len) => {
                if keeps() {
                    bytes.resize(*len, 0);
                }
            }
            Self::Write(offset, written) => {
                let mut from = 0;
                while from < written.len() {
                    let at = offset + from;
                    let until = (from + SECTOR - at % SECTOR).min(written.len());
                    if keeps() {
                        let end = offset + until;
                        if bytes.len() < end {
                            bytes.resize(end, 0);
                        }
                        bytes[at..end].copy_from_slice(&written[from..until]);
                    }
                    from = until;
                }
            }
        }
    }
}

fn disk() -> MutexGuard<'static, Option<Disk>> {
    DISK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_files() -> MutexGuard<'static, HashMap<usize, Open>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns an open file whose methods are replaced.
fn opened(file: *mut sqlite::sqlite3_file) -> Open {
    open_files()[&file.addr()].clone()
}

/// Changes the recorded content of an open file.
fn change(path: &Path, change: impl FnOnce(&mut File)) {
    if let Some(disk) = &mut *disk() {
        disk.change(path, change);
    }
}

type OpenFile = unsafe extern "C" fn(
    *mut sqlite::sqlite3_vfs,
    *const c_char,
    *mut sqlite::sqlite3_file,
    c_int,
    *mut c_int,
) -> c_int;
type DeleteFile = unsafe extern "C" fn(*mut sqlite::sqlite3_vfs, *const c_char, c_int) -> c_int;

/// SQLite's own functions, which the registered VFS calls.
struct Own {
    open: OpenFile,
    delete: DeleteFile,
}

/// The VFS, registered as the default one.
static VFS: LazyLock<Own> = LazyLock::new(|| {
    // SAFETY: the default VFS lives as long as the process, and so does the copy. The functions are those that SQLite expects.
    let (own, code) = unsafe {
        let own = sqlite::sqlite3_vfs_find(std::ptr::null());
        assert!(!own.is_null(), "SQLite has a VFS");
        let copy =
            sqlite::sqlite3_vfs { zName: c"forgetful".as_ptr(), xOpen: Some(open), xDelete: Some(delete), ..*own };
        let own = Own { open: (*own).xOpen.unwrap(), delete: (*own).xDelete.unwrap() };
        (own, sqlite::sqlite3_vfs_register(Box::leak(Box::new(copy)), 1))
    };
    assert_eq!(code, sqlite::SQLITE_OK);
    own
});

fn path(name: *const c_char) -> PathBuf {
    // SAFETY: SQLite passes names that end with NUL.
    PathBuf::from(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

unsafe extern "C" fn open(
    vfs: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are those of SQLite.
    let code = unsafe { (VFS.open)(vfs, name, file, flags, out_flags) };
    if code != sqlite::SQLITE_OK || name.is_null() || flags & RECORDED == 0 {
        return code;
    }
    // SAFETY: an open file has a table of methods, which lives as long as the process.
    let methods: &'static sqlite::sqlite3_io_methods = unsafe { &*(*file).pMethods };
    let replaced = sqlite::sqlite3_io_methods {
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        xClose: Some(close),
        ..*methods
    };
    open_files().insert(file.addr(), Open { path: path(name), methods });
    // SAFETY: the file is not used by another thread before this function returns.
    unsafe { (*file).pMethods = Box::leak(Box::new(replaced)) };
    code
}

unsafe extern "C" fn delete(vfs: *mut sqlite::sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: the arguments are those of SQLite.
    let code = unsafe { (VFS.delete)(vfs, name, sync_directory) };
    if let (sqlite::SQLITE_OK, Some(disk)) = (code, &mut *disk()) {
        disk.files.remove(&path(name));
    }
    code
}

unsafe extern "C" fn write(
    file: *mut sqlite::sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    offset: sqlite::sqlite3_int64,
) -> c_int {
    let file_open = opened(file);
    // SAFETY: the arguments are those of SQLite, for a file of its own VFS.
    let code = unsafe { file_open.methods.xWrite.unwrap()(file, bytes, len, offset) };
    if code == sqlite::SQLITE_OK {
        // SAFETY: SQLite passes `len` bytes.
        let written = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len.try_into().unwrap()) }.to_vec();
        let written = Change::Write(offset.try_into().unwrap(), written);
        change(&file_open.path, |file| file.unsynced.push(written));
    }
    code
}

unsafe extern "C" fn truncate(file: *mut sqlite::sqlite3_file, len: sqlite::sqlite3_int64) -> c_int {
    let file_open = opened(file);
    // SAFETY: the arguments are those of SQLite, for a file of its own VFS.
    let code = unsafe { file_open.methods.xTruncate.unwrap()(file, len) };
    if code == sqlite::SQLITE_OK {
        let cut = Change::Truncate(len.try_into().unwrap());
        change(&file_open.path, |file| file.unsynced.push(cut));
    }
    code
}

unsafe extern "C" fn sync(file: *mut sqlite::sqlite3_file, _: c_int) -> c_int {
    // The disk is this one: the one below need not be waited for.
    change(&opened(file).path, File::sync);
    sqlite::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut sqlite::sqlite3_file) -> c_int {
    let open = open_files().remove(&file.addr()).expect("the file is open");
    // SAFETY: the arguments are those of SQLite, for a file of its own VFS.
    unsafe { open.methods.xClose.unwrap()(file) }
}
