//! apt with lists and caches of its own: Debian packages and sources of any release are fetched, and neither the
//! machine's package lists nor what is installed on it is touched.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// Who signs Debian's package lists, of all releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Why there is no apt for us.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or file of its own could not be made.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The machine does not say where it gets Debian from.
    #[error("no source of a Debian release's main section in /etc/apt/sources.list and sources.list.d")]
    NoMirror,
}

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Packages of an architecture, as Debian names it (`amd64`).
    Packages(&'static str),
    /// What packages are made of.
    Sources,
}

/// An apt of its own.
#[derive(Debug)]
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// For one release of Debian (`bookworm`), from the mirror that this machine gets Debian itself from. Lists and
    /// caches are in a folder `apt` of `work`.
    pub fn new(work: &Path, kind: Kind, suite: &str) -> Result<Self, Error> {
        let at = |path: &Path| {
            let path = path.to_path_buf();
            |error| Error::Io { path, error }
        };
        let apt = work.join("apt");
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = apt.join(folder);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
        }
        let list = apt.join("sources.list");
        let (form, only) = match kind {
            Kind::Packages(architecture) => ("deb", format!("arch={architecture} ")),
            Kind::Sources => ("deb-src", String::new()),
        };
        let source = format!("{form} [{only}signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        fs::write(&list, source).map_err(at(&list))?;
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        let nothing = Path::new("/dev/null");
        let mut options = vec![
            option("Dir::Etc::sourcelist", &list),
            option("Dir::Etc::sourceparts", nothing),
            option("Dir::State::lists", &apt.join("lists")),
            option("Dir::Cache", &apt.join("cache")),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ];
        if let Kind::Packages(architecture) = kind {
            // What is installed here is of another one, perhaps.
            options.push(option("Dir::State::status", nothing));
            options.extend(["APT::Architecture", "APT::Architectures"].map(|name| format!("{name}={architecture}")));
        }
        Ok(Self { options })
    }

    /// One of apt's programs, such as `apt-get`, with this configuration. Its lists are empty until `update` has run.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.options.iter().flat_map(|option| ["-o", option]));
        command
    }
}

/// The mirror that this machine gets Debian itself from.
fn mirror() -> Result<String, Error> {
    let etc = Path::new("/etc/apt");
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = etc.join("sources.list.d").read_dir() {
        let mut more: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        more.sort();
        files.append(&mut more);
    }
    let mut texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.find_map(|text| mirror_in(&text)).ok_or(Error::NoMirror)
}

/// The first source of a release's `main`, in either of apt's two formats. Updates, security and others' do not count.
fn mirror_in(sources: &str) -> Option<String> {
    let release =
        |suite: &str| ["bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing"].contains(&suite);
    let one_line = sources.lines().find_map(|line| {
        let rest = line.strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let mut words = rest.split_whitespace();
        let (mirror, suite) = (words.next()?, words.next()?);
        (release(suite) && words.any(|word| word == "main")).then(|| mirror.to_owned())
    });
    one_line.or_else(|| {
        sources.split("\n\n").find_map(|stanza| {
            let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let has = |name, wanted: &dyn Fn(&str) -> bool| {
                field(name).is_some_and(|text| text.split_whitespace().any(wanted))
            };
            let ours = has("Types", &|word| word == "deb")
                && has("Suites", &release)
                && has("Components", &|word| word == "main");
            ours.then(|| field("URIs")?.split_whitespace().next().map(str::to_owned)).flatten()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_release() {
        let stanzas = "Types: deb\nURIs: http://security.example/debian-security\nSuites: bookworm-security\n\
                       Components: main\n\nTypes: deb\n# a comment\nURIs: http://mirror.example/debian\n\
                       Suites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(mirror_in(stanzas).as_deref(), Some("http://mirror.example/debian"));
        let lines = "# deb http://no.example sid main\ndeb http://other.example tool-bookworm main\n\
                     deb [arch=amd64 signed-by=/k] http://mirror.example/debian trixie main contrib\n";
        assert_eq!(mirror_in(lines).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in("Types: deb-src\nURIs: x\nSuites: sid\nComponents: main\n"), None);
    }
}
