//! One process for a state directory: two would replace each other's keys and spend each other's refresh tokens.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that is locked; it stays empty, and stays.
const FILE: &str = "lock";

/// How often a directory that is taken is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// Why a state directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum StateLockError {
    /// Another process has it.
    #[error("another process uses the state directory `{}`, and did not end within {} s", .directory.display(), waited.as_secs())]
    Taken {
        /// The directory.
        directory: PathBuf,
        /// How long its end was waited for.
        waited: Duration,
    },
    /// The lock file cannot be made or locked.
    #[error("the state directory `{}` cannot be used", .directory.display())]
    File {
        /// The directory.
        directory: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A state directory that is ours until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes `directory`, and makes it if need be. Where another process has it, waits up to `patience` for the end of
    /// that one: in a rolling restart it is draining.
    pub(super) async fn take(directory: &Path, patience: Duration) -> Result<Self, StateLockError> {
        let refuse = |source| StateLockError::File { directory: directory.to_owned(), source };
        let file = open(directory).map_err(refuse)?;
        let deadline = tokio::time::Instant::now() + patience;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(refuse(source)),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() >= deadline => {
                    return Err(StateLockError::Taken { directory: directory.to_owned(), waited: patience });
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if !told {
                tracing::info!(directory = %directory.display(), "another process uses the state directory; waiting");
                told = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn open(directory: &Path) -> io::Result<File> {
    if !fs::exists(directory)? {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_state_directory_is_for_one_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("state");
        let first = StateLock::take(&directory, Duration::ZERO).await.unwrap();
        let refused = StateLock::take(&directory, Duration::from_secs(30)).await.unwrap_err();
        assert!(matches!(refused, StateLockError::Taken { .. }), "{refused}");
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(first);
        StateLock::take(&directory, Duration::ZERO).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_the_end_of_the_process_before_it() {
        let home = tempfile::tempdir().unwrap();
        let first = StateLock::take(home.path(), Duration::ZERO).await.unwrap();
        let second = StateLock::take(home.path(), Duration::from_secs(30));
        let ends = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, ends);
        second.unwrap();
    }
}
