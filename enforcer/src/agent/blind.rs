//! Times in which the kernel did not call programs on its functions, because somebody had turned that off.

use std::io;

/// What looks have found.
#[derive(Debug, Default)]
pub(super) struct Blind {
    times: u64,
    /// It is off, and can't be turned on.
    lasts: bool,
}

impl Blind {
    /// A look, which turned it on if it was off.
    pub fn look(&mut self, turned_on: Option<io::Result<()>>) {
        let Some(turned_on) = turned_on else {
            self.lasts = false;
            return;
        };
        let lasted = std::mem::replace(&mut self.lasts, turned_on.is_err());
        if lasted && self.lasts {
            return;
        }
        self.times += u64::from(!lasted);
        let off = "somebody turned off kernel.ftrace_enabled: programs on functions of the kernel were not called";
        match turned_on {
            Ok(()) => tracing::error!("{off}; it is on again"),
            Err(error) => tracing::error!(%error, "{off}, and are not: it can't be turned on"),
        }
    }

    /// What a user should know of it.
    pub fn warning(&self) -> Option<String> {
        let seen = "what the tiers lsm, fentry and kprobe see";
        if self.lasts {
            Some(format!("kernel.ftrace_enabled is 0, and the enforcer may not change it: {seen} is not seen"))
        } else if self.times > 0 {
            let times = self.times;
            Some(format!("kernel.ftrace_enabled was turned off {times} times, for up to a second: {seen} was not seen"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_counts_once_however_long_it_lasts() {
        let mut blind = Blind::default();
        blind.look(None);
        assert_eq!(blind.warning(), None);
        let refused = || Some(Err(io::ErrorKind::PermissionDenied.into()));
        blind.look(refused());
        blind.look(refused());
        assert!(blind.warning().unwrap().contains("is 0"));
        blind.look(Some(Ok(())));
        assert!(blind.warning().unwrap().contains("turned off 1 times"));
        blind.look(None);
        blind.look(Some(Ok(())));
        assert!(blind.warning().unwrap().contains("turned off 2 times"));
    }
}
