//! `crag eval --report`: the page, and where it may go.

use std::path::PathBuf;

use super::{Folder, run, scored};

#[test]
fn a_report_is_never_written_over_its_records_and_goes_where_a_link_leads() {
    let folder = Folder::new();
    let records = scored(60, 0.0);
    let input = folder.write("a.jsonl", &records);
    let run_of = run(&["eval", "--scored", &input, "--report", &input], "");
    assert_eq!(run_of.code, 2, "{}", run_of.stderr);
    assert!(run_of.stderr.contains("is also an input"), "{}", run_of.stderr);
    assert_eq!(std::fs::read_to_string(&input).unwrap(), records);
    // What lies beside the report is nobody's business.
    let beside = folder.write("page.partial", &records);
    let run_of = run(&["eval", "--scored", &beside, "--report", &folder.name("page")], "");
    assert_eq!(run_of.code, 0, "{}", run_of.stderr);
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), records);
    std::os::unix::fs::symlink("real.html", folder.name("link.html")).unwrap();
    let linked = run(&["eval", "--scored", &input, "--report", &folder.name("link.html")], "");
    assert_eq!(linked.code, 0, "{}", linked.stderr);
    assert!(
        std::fs::symlink_metadata(folder.name("link.html"))
            .unwrap()
            .is_symlink()
    );
    assert!(
        std::fs::read_to_string(folder.name("real.html"))
            .unwrap()
            .ends_with("</html>")
    );
    let appended = std::process::Command::new(env!("CARGO_BIN_EXE_crag"))
        .args(["eval", "--scored", &input])
        .stdout(std::fs::OpenOptions::new().append(true).open(&input).unwrap())
        .output()
        .unwrap();
    assert_eq!(appended.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&input).unwrap(), records);
    let onto_a_folder = run(
        &[
            "eval",
            "--scored",
            &input,
            "--report",
            folder.0.path().to_str().unwrap(),
        ],
        "",
    );
    assert_eq!(onto_a_folder.code, 1, "{}", onto_a_folder.stderr);
    assert!(!PathBuf::from(format!("{}.tmp", folder.0.path().display())).exists());
}

#[test]
fn a_report_replaces_nothing_but_an_earlier_one() {
    let folder = Folder::new();
    let records = scored(60, 0.0);
    let (data, page) = (folder.write("old.jsonl", &records), folder.write("page.html", ""));
    let report = |path: &str| {
        run(
            &["eval", "--scored", "--resamples", "0", "--report", path],
            records.clone(),
        )
    };
    // Of two files to compare, the first taken for the flag's value.
    let refused = report(&data);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("old.jsonl") && refused.stderr.contains("name another"),
        "{}",
        refused.stderr
    );
    assert_eq!(std::fs::read_to_string(&data).unwrap(), records);
    let other = folder.write(
        "other.html",
        "<!DOCTYPE html><html><head><title>mine</title></head></html>",
    );
    assert_eq!(report(&other).code, 2);
    // What is empty, and then the page itself.
    for _ in 0..2 {
        assert_eq!(report(&page).code, 0);
        assert!(std::fs::read_to_string(&page).unwrap().ends_with("</html>"));
    }
}

#[test]
fn a_page_does_not_go_where_the_tables_go() {
    for stdout in ["-", "/dev/stdout"] {
        let refused = run(&["eval", "--scored", "--report", stdout], scored(60, 0.0));
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
        assert!(refused.stderr.contains("name a file"), "{}", refused.stderr);
    }
}

#[test]
fn the_report_is_one_page_that_needs_nothing_else() {
    let folder = Folder::new();
    let evil = "{\"label\":0,\"probability\":0.95,\"drug\":\"<img src=x onerror=alert(1)>\",\"adr\":\"</title>\",\"text\":\"<script>alert(1)</script>\"}\n";
    let input = folder.write("<b>.jsonl", &(scored(200, 0.0) + evil));
    let report = folder.name("report.html");
    let run_of = run(
        &["eval", "--scored", &input, "--report", &report, "--recall", "0.95"],
        "",
    );
    assert_eq!(run_of.code, 0, "{}", run_of.stderr);
    assert!(run_of.stdout.contains("report.html"), "{}", run_of.stdout);
    let page = std::fs::read_to_string(&report).unwrap();
    for tag in ["<script", "<img", "<b>", "</title>\"", "://"] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("<svg") && page.ends_with("</html>"));
    let before = std::fs::read_dir(folder.0.path()).unwrap().count();
    assert_eq!(before, 2, "nothing else is left in the folder");
    let nowhere = run(
        &["eval", "--scored", &input, "--report", "/no/such/folder/report.html"],
        "",
    );
    assert!(
        nowhere.code == 1 && nowhere.stderr.contains("/no/such/folder/report.html"),
        "{}",
        nowhere.stderr
    );
}
