//! Shell completions and man pages, from the same definitions as the command line itself.

use std::path::PathBuf;

use anyhow::Context as _;
use clap_complete::Shell;

use super::{Outcome, UsageError, command, console};

#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell to complete in
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for the pages of crag and of each subcommand; without one crag's own goes to stdout
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub fn completions(args: CompletionsArgs) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "crag", &mut script);
    super::print(&String::from_utf8(script)?)
}

pub fn man(args: ManArgs) -> anyhow::Result<Outcome> {
    match args.folder {
        Some(folder) => {
            if folder.exists() && !folder.is_dir() {
                let message = format!(
                    "{}: expected a folder for the man pages, found a file",
                    folder.display()
                );
                return Err(UsageError(message).into());
            }
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            clap_mangen::generate_to(command(), &folder).with_context(|| folder.display().to_string())?;
            console::note(&format!("wrote the man pages to {}", folder.display()));
            Ok(Outcome::Complete)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command()).render(&mut page)?;
            super::print(&String::from_utf8(page)?)
        }
    }
}
