//! Errors for people.

use std::error::Error;

/// An error and its causes, each told once: many a message holds that of its cause already.
pub fn sentence(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = error.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Wrong {
        #[error("reading {0}: {source}", source = .1)]
        Told(&'static str, #[source] io::Error),
        #[error("reading")]
        Untold(#[source] io::Error),
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || io::Error::other("no paper");
        assert_eq!(sentence(&Wrong::Told("news", cause())), "reading news: no paper");
        assert_eq!(sentence(&Wrong::Untold(cause())), "reading: no paper");
    }
}
