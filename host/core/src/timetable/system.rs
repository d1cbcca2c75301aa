//! Name of the machine's time zone.

use std::ffi::OsStr;
use std::path::{Component, Path};

use super::Zone;

/// File whose content, or target, is the machine's zone.
const LOCALTIME: &str = "/etc/localtime";

/// File in which Debian names the zone.
const TIMEZONE: &str = "/etc/timezone";

/// Directory of the system's time zone database, unless `TZDIR` names another.
const ZONEINFO: &str = "/usr/share/zoneinfo";

/// The system's setting of its zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemZone {
    /// A zone of this name.
    Named(String),
    /// No setting, which means UTC.
    Unset,
    /// A zone whose name cannot be found out; `0` says what was found.
    Unnamed(String),
}

/// Finds the machine's zone.
///
/// In this order: the environment's `TZ`, the target of `/etc/localtime`, `/etc/timezone`, and a file of the database with the same content
/// as `/etc/localtime`.
#[must_use]
pub fn system_zone() -> SystemZone {
    let directory = std::env::var_os("TZDIR").unwrap_or_else(|| ZONEINFO.into());
    let places = Places { localtime: LOCALTIME.as_ref(), timezone: TIMEZONE.as_ref(), zoneinfo: directory.as_ref() };
    places.zone(std::env::var_os("TZ").as_deref())
}

/// Places where the system stores its zone.
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

    /// Reads `TZ`: a name or a path, with an optional colon in front, or a POSIX rule, which has no name.
    ///
    /// An empty `TZ` means UTC.
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

    /// Returns the name of the database's file to which a path leads.
    fn of_path(&self, path: &Path) -> Option<String> {
        // The target may itself be a link to the zone's newest name: the first target that is a name counts.
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

    /// Returns the name of a file of the database with the same content.
    fn of_content(&self, path: &Path) -> Option<String> {
        let content = std::fs::read(path).ok()?;
        let is_same = |name: &String| std::fs::read(self.zoneinfo.join(name)).is_ok_and(|other| other == content);
        let mut names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
        // Names with an area come before names of countries and abbreviations, which are older.
        names.sort_by_key(|name| (!name.contains('/'), name.clone()));
        names.into_iter().filter(is_same).find_map(|name| named(&name))
    }
}

/// Largest number of links that are followed.
const LINKS: usize = 8;

/// Returns the part of a path after the directory `zoneinfo`, without `posix` and `right`, if it is a zone.
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

    /// A system with the given `/etc/timezone`, and a database of one zone.
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
