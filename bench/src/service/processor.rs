//! Processor time of another process, to the nanosecond.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

/// What the threads of a process have taken of the processors, by the scheduler's own account. Threads that have ended are
/// not in it.
pub(super) fn processor_time(id: u32) -> Result<Duration> {
    let tasks = Path::new("/proc").join(id.to_string()).join("task");
    let mut nanoseconds = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("look at {}", tasks.display()))? {
        let file = task.context("look at a thread")?.path().join("schedstat");
        // Gone since: then it is an ended thread.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        nanoseconds += first.with_context(|| format!("{} begins with no number", file.display()))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}
