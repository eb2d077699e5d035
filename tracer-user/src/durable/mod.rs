//! What outlives the process: checkpoints and the journal, in `state_dir`.
//!
//! A checkpoint is the state at one moment; the journals hold what changed it since, batch by batch.
//! Restoring is reading the one and taking in the other, which gives the same state again, because the
//! state follows from its inputs alone. Why this is exact is in docs/architecture.md, "Restarts".
//!
//! Deliberately absent: what the state is made of (`run/state.rs`), what is in the kernel
//! (`attach/pins.rs`), and when a checkpoint is due (`run/durability.rs`).

mod checkpoint;
mod frames;
mod journal;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use journal::Batches;

pub use self::{
    checkpoint::{Checkpoint, DaemonState, LossState, RingPlace},
    frames::FileError,
    journal::{Batch, Input, Journal},
};
use crate::attach::pins;

/// Why the folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Somebody has it.
    #[error("another linktracer uses the state_dir {0}\n  remedy: stop it, or give this one its own")]
    InUse(PathBuf),
    /// The file system says no.
    #[error("the state_dir {path} cannot be used: {error}\n  remedy: make it writable, or set another")]
    Io {
        /// Which folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The folder, held by one daemon at a time.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    /// Holds the lock.
    _lock: Arc<File>,
}

impl StateDir {
    /// Makes the folder if need be and takes its lock.
    ///
    /// # Errors
    /// It cannot be made or written to, or is in use.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let failed = |error| StateDirError::Io { path: path.to_path_buf(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        if !pins::lock(&lock).map_err(failed)? {
            return Err(StateDirError::InUse(path.to_path_buf()));
        }
        Ok(Self { path: path.to_path_buf(), _lock: Arc::new(lock) })
    }

    /// Reads the checkpoint. One that cannot be used is kept aside, with the journals that follow it,
    /// and there is nothing to restore then.
    ///
    /// # Errors
    /// What cannot be used cannot be moved aside either.
    pub fn read_checkpoint(&self) -> io::Result<Option<Checkpoint>> {
        match checkpoint::read(&self.checkpoint_path()) {
            Ok(checkpoint) => Ok(checkpoint),
            Err(error) => {
                self.refuse(&error)?;
                Ok(None)
            }
        }
    }

    /// Keeps what is there aside under other names, and says why.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn refuse(&self, error: &dyn std::fmt::Display) -> io::Result<()> {
        let mut aside = vec![self.checkpoint_path()];
        aside.extend(journal::journals(&self.path)?.into_iter().map(|(_, path)| path));
        aside.iter().filter(|path| path.exists()).try_for_each(|path| keep_aside(path, error))
    }

    /// Gives every batch since a checkpoint to `take`. Returns the number of the batch that comes next. A journal that cannot
    /// be used is kept aside, and what comes after it is not there: as after a sudden end of the machine, whoever goes on
    /// finds the ring further than the last batch.
    ///
    /// # Errors
    /// The folder cannot be read, what cannot be used cannot be moved aside, or `take` fails.
    pub fn replay(
        &self,
        daemon: &DaemonState,
        source: &Arc<str>,
        mut take: impl FnMut(Batch) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut next_sequence = daemon.next_sequence;
        for (number, path) in journal::journals(&self.path)? {
            if number < daemon.journal {
                continue;
            }
            let mut batches = match Batches::open(&path, source, next_sequence) {
                Ok(batches) => batches,
                Err(error @ FileError::Foreign(_)) => {
                    // Made ahead by a process that was killed before it had written the beginning.
                    tracing::debug!(%error, "passed over");
                    continue;
                }
                Err(error) => {
                    keep_aside(&path, &error)?;
                    break;
                }
            };
            let unusable = loop {
                match batches.next() {
                    Ok(Some(batch)) => take(batch)?,
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            next_sequence = batches.next_sequence();
            if let Some(error) = unusable {
                keep_aside(&path, &error)?;
                break;
            }
        }
        Ok(next_sequence)
    }

    /// Makes the next journal.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create_journal(&self, number: u64) -> io::Result<Journal> {
        Journal::create(&self.journal_path(number))
    }

    /// A number that no journal has.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn next_journal(&self) -> io::Result<u64> {
        Ok(journal::journals(&self.path)?.last().map_or(0, |(number, _)| number + 1))
    }

    /// Writes a checkpoint, and then removes the journals before its own.
    ///
    /// # Errors
    /// It could not be written. The one before it is still there then, with its journals.
    pub fn write_checkpoint(&self, checkpoint: Checkpoint) -> io::Result<()> {
        let number = checkpoint.daemon.journal;
        checkpoint::write(checkpoint, &self.path.join("checkpoint.new"), &self.checkpoint_path())?;
        // What stays is passed over by its number, and goes with the next checkpoint.
        for (_, path) in journal::journals(&self.path)?.into_iter().filter(|(other, _)| *other < number) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, file = %path.display(), "an old journal cannot be removed");
            }
        }
        Ok(())
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    fn journal_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("journal-{number}"))
    }
}

/// Gives a file a name under which nobody looks for it, and says why.
fn keep_aside(path: &Path, error: &dyn std::fmt::Display) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".refused-{now}"));
    tracing::error!(
        %error, file = %path.display(), kept_as = %Path::new(&kept).display(),
        "what was kept cannot be used; it is kept aside, and what was in it is forgotten"
    );
    fs::rename(path, &kept)
}
