//! Events as JSON lines in a file, for `linktracer replay`.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{domain::Event, replay::write_event};

/// A file that events are written to.
pub struct Recording {
    path: PathBuf,
    output: BufWriter<Box<dyn io::Write + Send>>,
}

impl Recording {
    /// Creates the file, or takes standard output for `-`. An existing file is not overwritten.
    ///
    /// # Errors
    /// The file exists or cannot be created.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let output: Box<dyn io::Write + Send> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let file = File::create_new(path).with_context(|| {
                format!("cannot create the recording {}\n  remedy: name a file that does not exist yet, in a folder that does", path.display())
            })?;
            Box::new(file)
        };
        Ok(Self { path: path.to_path_buf(), output: BufWriter::with_capacity(1 << 20, output) })
    }

    /// Writes one event.
    ///
    /// # Errors
    /// The file cannot be written, as when the disk is full.
    pub fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        write_event(event, &mut self.output)
            .with_context(|| format!("cannot write the recording {}", self.path.display()))
    }

    /// Hands everything written so far to the system.
    ///
    /// # Errors
    /// The file cannot be written, as when the disk is full.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.output.flush().with_context(|| format!("cannot write the recording {}", self.path.display()))
    }
}
