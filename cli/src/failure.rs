//! How a command fails, and with which exit status.

use std::{fmt::Display, io, process::ExitCode};

use anyhow::anyhow;
use ringfence_control::{ClientError, printable, sentence};

/// Why a command did not do what it was told.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for is wrong: exit status 2.
    Input(anyhow::Error),
    /// It was right, and did not work: exit status 1.
    Failed(anyhow::Error),
    /// The problems are printed already: exit status 2.
    Reported,
}

/// What every command returns.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// Wrong input, in one sentence that says what would be right.
    pub fn input(sentence: impl Display) -> Self {
        Self::Input(anyhow!("{sentence}"))
    }

    /// Prints why, unless it is printed already; the exit status.
    pub fn report(self) -> ExitCode {
        let (error, status) = match self {
            Self::Input(error) => (error, 2),
            Self::Failed(error) => (error, 1),
            Self::Reported => return ExitCode::from(2),
        };
        // Whoever read the output (`ringfence rules | head`) has seen enough.
        if error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        // Several problems of one file are several lines; what is within a line may come from that file.
        for line in sentence(error.as_ref()).lines() {
            eprintln!("ringfence: {}", printable(line));
        }
        ExitCode::from(status)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(_) => Self::Input(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}
