//! `ringfence man`: the manual.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use crate::{
    args,
    failure::{Failure, Outcome},
    output,
};

/// `ringfence man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ringfence man | man -l -\n  ringfence man --dir /usr/local/share/man/man1")]
pub struct Man {
    /// Write a page for every command into this folder instead
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints one page, or writes all.
    pub fn run(self) -> Outcome {
        let command = args::Args::command();
        if let Some(folder) = self.dir {
            return clap_mangen::generate_to(command, &folder).map_err(|error| {
                Failure::input(format_args!("cannot write manual pages to {}: {error}", folder.display()))
            });
        }
        let mut page = Vec::new();
        Page::new(command).render(&mut page).context("writing the manual page")?;
        output::text(&String::from_utf8_lossy(&page))
    }
}
