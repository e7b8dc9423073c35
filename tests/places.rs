//! Outputs in places that others set up: for other readers, mounted, in folders that are not one's own, under long names.
//!
//! Another user and mounts take root's rights; without them these tests say that they are skipped.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::place::{Place, wait_for};
use crate::common::signals::{heed_signals, heeds};

const USER: u32 = 54_321;
const GROUP: u32 = 54_322;
const OTHER_GROUP: u32 = 54_323;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The place as one that another user may write to; none, and that is said, where this process may not act for others.
fn for_another_user(place: &Place) -> Option<()> {
    let folder = place.path("");
    let given = chown(&folder, Some(USER), Some(GROUP));
    set_mode(&folder, 0o755);
    let runs = given.is_ok() && {
        let mut command = as_another_user(place, &["--version"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !runs {
        eprintln!("skipped: cannot run as another user");
    }
    runs.then_some(())
}

/// The binary run by another user, who is in one group alone.
fn as_another_user(place: &Place, arguments: &[&str]) -> Command {
    let prepared = place.command(&[]);
    let mut command = Command::new(prepared.get_program());
    command.args(arguments).current_dir(place.path("")).uid(USER).gid(GROUP);
    command.env("HF_HUB_OFFLINE", "1");
    command
}

const SCORE: [&str; 4] = ["score", "-q", "--model", "demo"];

fn score_as_another_user(place: &Place, arguments: &[&str]) -> Output {
    let all = [&SCORE[..], arguments, &["pairs.jsonl"]].concat();
    as_another_user(place, &all).output().unwrap()
}

#[test]
fn whoever_could_read_the_old_output_can_read_the_new_and_nobody_else() {
    let place = Place::with_pairs(2);
    let Some(()) = for_another_user(&place) else { return };
    let out = place.path("out.jsonl");
    let state = || {
        let metadata = fs::metadata(&out).unwrap();
        (metadata.gid(), metadata.mode() & 0o777)
    };
    let old = |group: u32, mode: u32| {
        let _ = fs::remove_file(&out);
        place.write("out.jsonl", "old");
        chown(&out, Some(USER), Some(group)).unwrap();
        set_mode(&out, mode);
    };
    let arguments = ["-o", "out.jsonl", "--force"];
    // Its group can be kept by who is in it, and by root.
    old(GROUP, 0o640);
    let run = score_as_another_user(&place, &arguments);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert_eq!(state(), (GROUP, 0o640));
    old(OTHER_GROUP, 0o660);
    let run = place.score(&["-o", "out.jsonl", "--force", "pairs.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(state(), (OTHER_GROUP, 0o660));
    // Others cannot give a file away: then it is for no group.
    old(OTHER_GROUP, 0o640);
    let run = score_as_another_user(&place, &arguments);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert_eq!(state(), (GROUP, 0o600));
    // So are a summary and a manifest.
    for name in ["summary.json", "out.jsonl.manifest.json"] {
        chown(place.path(name), Some(USER), Some(OTHER_GROUP)).unwrap_or_default();
    }
    let manifest = place.path("out.jsonl.manifest.json");
    set_mode(&manifest, 0o640);
    let run = score_as_another_user(&place, &arguments);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert_eq!(fs::metadata(&manifest).unwrap().mode() & 0o777, 0o600);
}

/// Tag, rights and number of each entry of an access list, as the kernel keeps it.
fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, number) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(number.to_le_bytes());
    }
    bytes
}

#[test]
fn an_access_list_is_handed_on() {
    const NAME: &std::ffi::CStr = c"system.posix_acl_access";
    let place = Place::with_pairs(2);
    place.write("out.jsonl", "old");
    let out = place.path("out.jsonl");
    let name = std::ffi::CString::new(out.to_str().unwrap()).unwrap();
    let nobody = u32::MAX;
    // Its owner may write, one user may read, and the group may not.
    let list = access_list(&[
        (1, 6, nobody),
        (2, 4, USER),
        (4, 0, nobody),
        (16, 4, nobody),
        (32, 0, nobody),
    ]);
    // SAFETY: both names end in a zero byte; `list.len()` bytes of `list` are read.
    let set = unsafe { libc::setxattr(name.as_ptr(), NAME.as_ptr(), list.as_ptr().cast(), list.len(), 0) };
    if set != 0 {
        eprintln!("skipped: this file system has no access lists");
        return;
    }
    let run = place.score(&["-o", "out.jsonl", "--force", "pairs.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_ne!(place.read("out.jsonl"), b"old");
    assert_eq!(
        fs::metadata(&out).unwrap().mode() & 0o777,
        0o640,
        "its group's bits are what the list leaves anybody"
    );
    let mut found = vec![0u8; 1000];
    // SAFETY: as above; at most `found.len()` bytes are written to it.
    let length = unsafe { libc::getxattr(name.as_ptr(), NAME.as_ptr(), found.as_mut_ptr().cast(), found.len()) };
    assert_eq!(usize::try_from(length).map(|length| &found[..length]), Ok(&list[..]));
}

/// Runs the binary where `host` is mounted at `place`'s `name`; none, and that is said, where this process may not mount.
fn with_mounted(place: &Place, name: &str, arguments: &[&str]) -> Option<Output> {
    let script = format!("mount --bind host {name} || exit 99; exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.arg(place.command(&[]).get_program());
    let output = command.args(arguments).current_dir(place.path("")).output().ok()?;
    // unshare's own failure is 1, of which nothing of ours speaks.
    let is_ours = said(&output).contains("crag: ") || output.status.code() == Some(0);
    if !is_ours {
        eprintln!("skipped: cannot mount ({})", said(&output).trim());
    }
    is_ours.then_some(output)
}

#[test]
fn what_is_mounted_by_itself_is_refused_before_anything_is_scored() {
    let place = Place::with_pairs(2);
    place.write("host", "");
    place.write("out.jsonl", "");
    for arguments in [&["-o", "out.jsonl", "--force"][..], &["--summary-json", "out.jsonl"]] {
        let all = [&SCORE[..], arguments, &["pairs.jsonl"]].concat();
        let Some(run) = with_mounted(&place, "out.jsonl", &all) else {
            return;
        };
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {}", said(&run));
        assert!(
            said(&run).contains("out.jsonl: it is mounted there by itself"),
            "{}",
            said(&run)
        );
        assert!(run.stdout.is_empty());
        assert_eq!(place.outputs(), ["out.jsonl"]);
    }
}

#[test]
fn another_users_output_in_a_folder_for_all_is_refused_before_anything_is_scored() {
    let place = Place::with_pairs(2);
    let Some(()) = for_another_user(&place) else { return };
    chown(place.path(""), Some(0), Some(0)).unwrap();
    set_mode(&place.path(""), 0o1777);
    place.write("out.jsonl", "old");
    let run = score_as_another_user(&place, &["-o", "out.jsonl", "--force"]);
    assert_eq!(run.status.code(), Some(2), "{}", said(&run));
    assert!(said(&run).contains("it is another user's"), "{}", said(&run));
    assert_eq!(
        (place.read("out.jsonl"), place.outputs()),
        (b"old".to_vec(), vec!["out.jsonl".to_owned()])
    );
    // One's own is nobody else's matter.
    chown(place.path("out.jsonl"), Some(USER), None).unwrap();
    let run = score_as_another_user(&place, &["-o", "out.jsonl", "--force"]);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
}

#[test]
fn a_folder_that_may_be_written_to_and_not_read_takes_outputs() {
    let place = Place::with_pairs(2);
    let Some(()) = for_another_user(&place) else { return };
    fs::create_dir(place.path("letters")).unwrap();
    chown(place.path("letters"), Some(USER), Some(GROUP)).unwrap();
    set_mode(&place.path("letters"), 0o311);
    let run = score_as_another_user(&place, &["-o", "letters/out.jsonl"]);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert_eq!(crate::common::json_lines(&place.read("letters/out.jsonl")).len(), 2);
}

#[test]
fn a_name_that_is_too_long_for_all_that_is_written_is_refused_before_anything_is_scored() {
    let place = Place::with_pairs(2);
    for length in [200, 222, 225, 231, 237, 240, 250, 255] {
        let name = "o".repeat(length - ".jsonl".len()) + ".jsonl";
        let run = place.score(&["-o", &name, "pairs.jsonl"]);
        match run.code {
            0 => assert_eq!(place.read(&name), place.score(&["pairs.jsonl"]).stdout),
            code => {
                assert_eq!(code, 1, "{}", run.stderr);
                assert!(
                    length > 220 && run.stderr.contains("too long"),
                    "{length}: {}",
                    run.stderr
                );
                assert!(!run.stderr.contains("--resume"), "{}", run.stderr);
                let left = fs::read_dir(place.path("")).unwrap();
                let left =
                    left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&name));
                assert_eq!(left.count(), 0, "{length}");
            }
        }
    }
}

#[test]
fn a_container_s_first_process_is_ended_by_a_signal() {
    let place = Place::with_pairs(0);
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child"])
        .arg(place.command(&[]).get_program());
    // It waits for a stdin whose other end stays open.
    command.args(["check", "-"]);
    command
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let Ok(mut child) = heed_signals(&mut command).spawn() else {
        eprintln!("skipped: no unshare");
        return;
    };
    // unshare's one child is the process with the number 1 in there.
    let mut first = String::new();
    wait_for(|| {
        first = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
        child.try_wait().unwrap().is_some() || first.trim().parse().is_ok_and(|first| heeds(first, libc::SIGTERM))
    });
    if let Some(status) = child.try_wait().unwrap() {
        eprintln!("skipped: cannot make a namespace of processes ({status})");
        return;
    }
    let sent = Command::new("kill").args(["-TERM", first.trim()]).status().unwrap();
    assert!(sent.success());
    let since = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if since.elapsed() > std::time::Duration::from_secs(5) {
            child.kill().unwrap();
            panic!("still running");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
