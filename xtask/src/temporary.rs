//! A folder of its own for a piece of work, gone with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A folder that goes away with this value.
pub(crate) struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    /// `purpose` tells it from others of this process.
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("linktracer-{purpose}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into it.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What is left behind in the system's folder of temporary files harms nobody.
        drop(fs::remove_dir_all(&self.path));
    }
}
