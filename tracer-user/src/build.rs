//! What this binary was built from.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, or `unknown` outside a repository.
pub const COMMIT: &str = env!("LINKTRACER_COMMIT");
