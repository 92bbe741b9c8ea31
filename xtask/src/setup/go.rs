//! Go, which builds the programs of a cluster. It is not installed here: Debian's may be too old.

use std::process::Command;

use anyhow::Result;

use crate::Refusal;

/// What the newest Kubernetes wants.
const OLDEST: (u32, u32) = (1, 26);

/// Refuses where there is no Go, or one that is too old.
pub fn check() -> Result<()> {
    let output = Command::new("go").args(["env", "GOVERSION"]).output();
    let found = output.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let wanted = format!("Go {}.{} or later", OLDEST.0, OLDEST.1);
    let hint = "it builds the Kubernetes of `cargo xtask cluster`; install it and put it in PATH";
    let refusal = match found {
        None => format!("{wanted} is not installed: {hint}"),
        Some(version) if number(&version).is_none_or(|number| number < OLDEST) => {
            format!("{wanted} is needed, and this is {version:?}: {hint}")
        }
        Some(_) => return Ok(()),
    };
    Err(Refusal(refusal).into())
}

/// Of `go1.26.8`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("go")?.split(['.', 'r', 'b', ' ']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(number("go1.26.8"), Some((1, 26)));
        assert_eq!(number("go1.27rc1"), Some((1, 27)));
        assert_eq!(number("devel"), None);
        assert_eq!(number(""), None);
        assert!(number("go1.9") < Some(OLDEST));
    }
}
