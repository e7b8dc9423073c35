//! Completions, man pages, help and version: all from one definition, so all complete.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::crag;

fn stdout_of(arguments: &[&str]) -> String {
    let output = crag().args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words that begin the lines of a section of help: subcommands, or flags.
fn first_words(help: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
    // Deeper lines are text, but for flags without a short form.
    let begins = |line: &&str| line.starts_with("  ") && !line.starts_with("   ") || line.starts_with("      --");
    let words = help.lines().filter(begins).filter_map(|line| {
        // `  -q, --quiet` or `      --json`
        let line = line.trim_start();
        let line = line
            .split_once(", --")
            .filter(|(short, _)| short.len() == 2)
            .map_or(line.to_owned(), |(_, l)| format!("--{l}"));
        let word = line.split([' ', '=', '[']).next()?.to_owned();
        is_wanted(&word).then_some(word)
    });
    words.collect()
}

/// Every subcommand with its flags, as `--help` tells of them.
fn definitions() -> BTreeMap<String, Vec<String>> {
    let help = stdout_of(&["--help"]);
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let subcommands = first_words(commands, |word| word != "help");
    assert!(
        subcommands.contains(&"score".to_owned()) && subcommands.len() >= 7,
        "{subcommands:?}"
    );
    let flags = |subcommand: &String| first_words(&stdout_of(&[subcommand, "--help"]), |word| word.starts_with("--"));
    subcommands.iter().map(|name| (name.clone(), flags(name))).collect()
}

#[test]
fn examples_in_help_stand_in_a_line_of_eighty_columns_each() {
    let mut examples_seen = 0;
    for subcommand in definitions().keys() {
        let help = stdout_of(&[subcommand, "--help"]);
        let examples = help.split("\nExamples:\n").nth(1).unwrap_or_default();
        // A line that was too long goes on at the margin.
        for line in examples.split("\n\n").next().unwrap_or_default().lines() {
            assert!(line.starts_with("  ") && line.len() < 80, "{subcommand}: {line}");
            examples_seen += 1;
        }
    }
    assert!(examples_seen > 20, "{examples_seen}");
}

#[test]
fn every_subcommand_and_flag_can_be_completed_in_every_shell() {
    let definitions = definitions();
    assert!(definitions["score"].len() > 25, "{:?}", definitions["score"]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout_of(&["completions", shell]);
        for (subcommand, flags) in &definitions {
            assert!(script.contains(subcommand), "{shell}: {subcommand}");
            for flag in flags {
                let written = if shell == "fish" {
                    format!("-l {}", &flag[2..])
                } else {
                    flag.clone()
                };
                assert!(script.contains(&written), "{shell}: {subcommand} {flag}");
            }
        }
    }
}

#[test]
fn every_subcommand_has_a_page_with_all_its_flags() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("man1");
    stdout_of(&["man", folder.to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().replace("\\-", "-");
    let main = page("crag.1");
    assert!(stdout_of(&["man"]).replace("\\-", "-").contains("crag-score"));
    for (subcommand, flags) in definitions() {
        assert!(main.contains(&format!("crag-{subcommand}")), "{subcommand}");
        let page = page(&format!("crag-{subcommand}.1"));
        let help = stdout_of(&[&subcommand, "--help"]);
        assert_eq!(
            page.contains(".SH EXAMPLES\n.nf\n  crag "),
            help.contains("\nExamples:\n  crag "),
            "{subcommand}"
        );
        assert_eq!(
            page.contains(".SH \"EXIT STATUS\"\n"),
            help.contains("Exit codes: "),
            "{subcommand}"
        );
        assert!(page.contains(".SH VERSION") && !page.contains("EXTRA"), "{subcommand}");
        for flag in flags {
            assert!(page.contains(&flag), "{subcommand} {flag}");
        }
    }
}

#[test]
fn the_version_says_what_was_built() {
    let text = stdout_of(&["--version"]);
    assert_eq!(text.trim(), format!("crag {}", env!("CARGO_PKG_VERSION")));
    let version: Value = serde_json::from_str(&stdout_of(&["--version", "--json"])).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["rustc"].as_str().unwrap().starts_with("rustc 1."), "{version}");
    assert!(
        version["target"].as_str().unwrap().contains(std::env::consts::ARCH),
        "{version}"
    );
    assert_eq!(
        version["features"].as_array().unwrap().len(),
        usize::from(cfg!(feature = "cuda"))
    );
    match version["commit"].as_str() {
        Some(commit) => assert!(commit.len() == 40 && version["modified"].is_boolean(), "{version}"),
        None => assert!(
            version["commit"].is_null() && version["modified"].is_null(),
            "{version}"
        ),
    }
    let lonely = crag().args(["--json", "inspect", "--model", "demo"]).output().unwrap();
    assert_eq!(lonely.status.code(), Some(2));
}
