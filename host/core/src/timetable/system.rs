//! The time zone of the machine, by its name.

use std::ffi::OsStr;
use std::path::{Component, Path};

use super::Zone;

/// The file whose content, or target, is the machine's zone.
const LOCALTIME: &str = "/etc/localtime";

/// The file in which Debian names it.
const TIMEZONE: &str = "/etc/timezone";

/// Where the system's database is, unless `TZDIR` says otherwise.
const ZONEINFO: &str = "/usr/share/zoneinfo";

/// What the system says of its zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemZone {
    /// It has this name.
    Named(String),
    /// Nothing says where the machine is, which means UTC.
    Unset,
    /// It has one whose name is not to be found out; `0` says what was found.
    Unnamed(String),
}

/// Finds the machine's zone: by the environment's `TZ`, by where `/etc/localtime` points to, by `/etc/timezone`, and by a file of the
/// database that is the same as `/etc/localtime`.
#[must_use]
pub fn system_zone() -> SystemZone {
    let directory = std::env::var_os("TZDIR").unwrap_or_else(|| ZONEINFO.into());
    let places = Places { localtime: LOCALTIME.as_ref(), timezone: TIMEZONE.as_ref(), zoneinfo: directory.as_ref() };
    places.zone(std::env::var_os("TZ").as_deref())
}

/// Where the system keeps what it knows.
struct Places<'a> {
    localtime: &'a Path,
    timezone: &'a Path,
    zoneinfo: &'a Path,
}

impl Places<'_> {
    fn zone(&self, tz: Option<&OsStr>) -> SystemZone {
        match tz {
            Some(tz) => self.of_variable(&tz.to_string_lossy()),
            None => self.of_files(),
        }
    }

    /// `TZ` is a name or a path, perhaps with a colon in front, or a rule of POSIX, which has no name. An empty one means UTC.
    fn of_variable(&self, tz: &str) -> SystemZone {
        let text = tz.strip_prefix(':').unwrap_or(tz);
        if text.is_empty() {
            return SystemZone::Named("UTC".to_owned());
        }
        let path = Path::new(text);
        let found = if path.is_absolute() { self.of_path(path).or_else(|| self.of_content(path)) } else { named(text) };
        found.map_or_else(|| SystemZone::Unnamed(format!("TZ={tz}")), SystemZone::Named)
    }

    fn of_files(&self) -> SystemZone {
        if !self.localtime.exists() {
            return self.of_debian().map_or(SystemZone::Unset, SystemZone::Named);
        }
        let found = self.of_path(self.localtime).or_else(|| self.of_debian());
        let found = found.or_else(|| self.of_content(self.localtime));
        found.map_or_else(|| SystemZone::Unnamed(self.localtime.display().to_string()), SystemZone::Named)
    }

    /// The name of the database's file that a path leads to.
    fn of_path(&self, path: &Path) -> Option<String> {
        // What it points to may itself be a link to the zone's newest name: the first that is a name counts.
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            if let Some(name) = name_within(&path) {
                return Some(name);
            }
            let target = std::fs::read_link(&path).ok()?;
            path = path.parent()?.join(target);
        }
        None
    }

    fn of_debian(&self) -> Option<String> {
        named(std::fs::read_to_string(self.timezone).ok()?.trim())
    }

    /// The name of a file of the database with the same content.
    fn of_content(&self, path: &Path) -> Option<String> {
        let content = std::fs::read(path).ok()?;
        let is_same = |name: &String| std::fs::read(self.zoneinfo.join(name)).is_ok_and(|other| other == content);
        let mut names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
        // Names of areas go before those of countries and abbreviations, which are older.
        names.sort_by_key(|name| (!name.contains('/'), name.clone()));
        names.into_iter().filter(is_same).find_map(|name| named(&name))
    }
}

/// How many links are followed from one to the next.
const LINKS: usize = 8;

/// What is behind the directory `zoneinfo` of a path, without `posix` and `right`, if it is a zone.
fn name_within(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.components().filter_map(part).collect();
    let begin = parts.iter().position(|part| *part == "zoneinfo")? + 1;
    let name = parts.get(begin..)?;
    let name = name.strip_prefix(&["posix"]).or_else(|| name.strip_prefix(&["right"])).unwrap_or(name);
    named(&name.join("/"))
}

fn part(component: Component<'_>) -> Option<&str> {
    match component {
        Component::Normal(part) => part.to_str(),
        _ => None,
    }
}

fn named(name: &str) -> Option<String> {
    name.parse::<Zone>().ok().map(|_| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A system with this `/etc/timezone`, and a database of one zone.
    struct System(tempfile::TempDir);

    const BERLIN: &str = "Europe/Berlin";

    impl System {
        fn new() -> Self {
            let system = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(system.path("zoneinfo/Europe")).unwrap();
            fs::create_dir_all(system.path("zoneinfo/posix/Europe")).unwrap();
            fs::write(system.path("zoneinfo").join(BERLIN), "the rules of Berlin").unwrap();
            fs::write(system.path("zoneinfo/posix").join(BERLIN), "the rules of Berlin").unwrap();
            system
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn zone(&self, tz: Option<&str>) -> SystemZone {
            let (localtime, timezone, zoneinfo) =
                (self.path("localtime"), self.path("timezone"), self.path("zoneinfo"));
            let places = Places { localtime: &localtime, timezone: &timezone, zoneinfo: &zoneinfo };
            places.zone(tz.map(OsStr::new))
        }
    }

    fn berlin() -> SystemZone {
        SystemZone::Named(BERLIN.to_owned())
    }

    #[test]
    fn the_variable_names_a_zone_in_each_of_its_forms() {
        let system = System::new();
        symlink("nowhere", system.path("localtime")).unwrap();
        let path = system.path("zoneinfo/Europe/Berlin").display().to_string();
        for tz in [BERLIN, ":Europe/Berlin", &path, &format!(":{path}")] {
            assert_eq!(system.zone(Some(tz)), berlin(), "{tz}");
        }
        for (tz, name) in [("", "UTC"), (":", "UTC"), ("UTC", "UTC"), ("EST5EDT", "EST5EDT")] {
            assert_eq!(system.zone(Some(tz)), SystemZone::Named(name.to_owned()), "{tz}");
        }
        for tz in ["CET-1CEST,M3.5.0,M10.5.0/3", "Europe/Berln", "localtime", "/etc/nowhere"] {
            assert_eq!(system.zone(Some(tz)), SystemZone::Unnamed(format!("TZ={tz}")), "{tz}");
        }
    }

    #[test]
    fn the_link_names_a_zone_also_through_another_link() {
        for target in ["zoneinfo/Europe/Berlin", "zoneinfo/posix/Europe/Berlin", "other"] {
            let system = System::new();
            symlink("zoneinfo/Europe/Berlin", system.path("other")).unwrap();
            symlink(target, system.path("localtime")).unwrap();
            assert_eq!(system.zone(None), berlin(), "{target}");
        }
    }

    #[test]
    fn a_copy_is_named_by_debian_or_by_its_content() {
        let system = System::new();
        fs::copy(system.path("zoneinfo/Europe/Berlin"), system.path("localtime")).unwrap();
        assert_eq!(system.zone(None), berlin());
        fs::write(system.path("timezone"), "America/New_York\n").unwrap();
        assert_eq!(system.zone(None), SystemZone::Named("America/New_York".to_owned()));
    }

    #[test]
    fn what_has_no_name_is_said_and_nothing_means_utc() {
        let system = System::new();
        assert_eq!(system.zone(None), SystemZone::Unset);
        fs::write(system.path("localtime"), "rules of our own").unwrap();
        assert!(matches!(system.zone(None), SystemZone::Unnamed(found) if found.ends_with("localtime")));
    }
}
