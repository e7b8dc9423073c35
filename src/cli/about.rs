//! What this program is: version, commit, features, target, compiler.

use serde::Serialize;

/// As `crag --version --json` prints it and manifests hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    pub name: &'static str,
    pub version: &'static str,
    /// The git commit that was built; null in development builds and where there was no checkout.
    pub commit: Option<&'static str>,
    /// Whether the sources differed from the commit; null without one.
    pub modified: Option<bool>,
    pub features: &'static [&'static str],
    pub target: &'static str,
    pub rustc: &'static str,
}

const FEATURES: &[&str] = if cfg!(feature = "cuda") { &["cuda"] } else { &[] };

/// What the build script found out.
pub const ABOUT: About = About {
    name: "crag",
    version: env!("CARGO_PKG_VERSION"),
    commit: option_env!("CRAG_BUILD_COMMIT"),
    modified: match option_env!("CRAG_BUILD_MODIFIED") {
        Some(value) => Some(!value.is_empty()),
        None => None,
    },
    features: FEATURES,
    target: env!("CRAG_BUILD_TARGET"),
    rustc: env!("CRAG_BUILD_RUSTC"),
};
