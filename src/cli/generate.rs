//! Shell completions and man pages, from the same definitions as the command line itself.

use std::path::PathBuf;

use anyhow::Context as _;
use clap_complete::Shell;
use clap_mangen::Man;

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
            let mut crag = command().disable_help_subcommand(true);
            crag.build();
            let all = crag.get_subcommands().cloned().chain([crag.clone()]);
            for command in all.filter(|command| !command.is_hide_set()) {
                let path = folder.join(Man::new(command.clone()).get_filename());
                std::fs::write(&path, page(command)?).with_context(|| path.display().to_string())?;
            }
            console::note(&format!("wrote the man pages to {}", folder.display()));
            Ok(Outcome::Complete)
        }
        None => super::print(&page(command())?),
    }
}

/// A man page, with what its command's help says last under the headings that readers of such pages look for.
fn page(command: clap::Command) -> anyhow::Result<String> {
    let usage = command.clone().render_usage().to_string();
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    let page = with_usage(&String::from_utf8(page)?, &usage);
    let Some((before, extra)) = page.split_once(".SH EXTRA\n") else {
        return Ok(page);
    };
    let (extra, after) = extra.split_once("\n.SH ").unwrap_or((extra, ""));
    let (mut notes, mut examples, mut exit_status) = (String::new(), String::new(), String::new());
    for paragraph in extra.trim_end().split("\n\n") {
        if let Some(lines) = paragraph.strip_prefix("Examples:\n") {
            examples = format!(".SH EXAMPLES\n.nf\n{lines}\n.fi\n");
        } else if let Some(codes) = paragraph.strip_prefix("Exit codes: ") {
            exit_status = format!(".SH \"EXIT STATUS\"\n{codes}\n");
        } else {
            let begin = if notes.is_empty() { ".SH NOTES\n" } else { "\n" };
            notes += &format!("{begin}{paragraph}\n");
        }
    }
    Ok(format!("{before}{notes}{examples}{exit_status}.SH {after}"))
}

/// The page with the command's usage as its synopsis, in the place of a list of all flags in no order.
fn with_usage(page: &str, usage: &str) -> String {
    let usage = usage
        .trim_start_matches("Usage: ")
        .replace('-', "\\-")
        .replace("\n", "\n.br\n");
    let replaced = || {
        let (before, synopsis) = page.split_once(".SH SYNOPSIS\n")?;
        let (_, after) = synopsis.split_once("\n.SH ")?;
        Some(format!("{before}.SH SYNOPSIS\n{usage}\n.SH {after}"))
    };
    replaced().unwrap_or_else(|| page.to_owned())
}
