//! What has to be known before the crate compiles: that the system will do, and which commit this is.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_CFG_UNIX").is_none() {
        // Said here, before dozens of errors about what is missing there.
        println!("cargo::error=crag needs Linux or macOS: on Windows, build and run it in WSL");
        return;
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_some() && env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        println!(
            "cargo::error=a static program cannot load NVIDIA's driver: leave out --features cuda, or build for glibc"
        );
        return;
    }
    describe_build();
}

/// What a build is made of, and so what decides whether it is the commit's.
const SOURCES: [&str; 5] = ["src", "kernels", "build.rs", "Cargo.toml", "Cargo.lock"];

/// `CRAG_BUILD_*` for `src/cli/about.rs`. Outside a git checkout of this package there is no commit, and a
/// development build names none: it would have to be built again after every commit.
fn describe_build() {
    let target = env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo:rustc-env=CRAG_BUILD_TARGET={target}");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(Command::new(rustc).arg("--version")).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=CRAG_BUILD_RUSTC={version}");

    let released = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let Some(commit) = released.then(commit_of_this_package).flatten() else {
        return;
    };
    println!("cargo:rustc-env=CRAG_BUILD_COMMIT={commit}");
    let changes = git(&[&["status", "--porcelain", "--"], SOURCES.as_slice()].concat());
    let modified = changes.is_none_or(|changes| !changes.is_empty());
    println!(
        "cargo:rustc-env=CRAG_BUILD_MODIFIED={}",
        if modified { "yes" } else { "" }
    );
    // Whenever the commit, or whether this is it, can have changed.
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for path in SOURCES {
        println!("cargo:rerun-if-changed={path}");
    }
}

/// None where the package was unpacked into some other project's checkout.
fn commit_of_this_package() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let package = env::var_os("CARGO_MANIFEST_DIR")?;
    let same = Path::new(&top).canonicalize().ok()? == Path::new(&package).canonicalize().ok()?;
    same.then(|| git(&["rev-parse", "HEAD"])).flatten()
}

fn git(arguments: &[&str]) -> Option<String> {
    // A refreshed index would change the file that is watched, and so build again the next time.
    output(Command::new("git").args(arguments).env("GIT_OPTIONAL_LOCKS", "0"))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
