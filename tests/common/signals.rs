//! Signals to the binary under test.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// Lets `command` begin as from a terminal. Whoever runs the tests may ignore signals (`nohup`, a shell's jobs in the
/// background, some runners of CI); that is handed down, and `crag` leaves ignored what was ignored from the start.
pub fn heed_signals(command: &mut Command) -> &mut Command {
    let by_default = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            // SAFETY: the default is no handler that could be called.
            if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec nothing is called but `signal`, which POSIX allows there, and nothing is allocated.
    unsafe { command.pre_exec(by_default) }
}

/// Whether the process has a handler for a signal, as Linux tells.
pub fn heeds(process: u32, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}

/// Whether the process has a file of this name open, as Linux tells.
pub fn has_open(process: u32, name: &str) -> bool {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
    let mut files = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    files.any(|file| file.ends_with(name))
}

/// Sends a signal by name: `INT`, `TERM`, `HUP`.
pub fn send(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([format!("-{signal}"), child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{signal}");
}
