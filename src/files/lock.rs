//! The kernel lock that keeps a second run out. It ends with the process, however that ends.

use std::fs::{File, Permissions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::disk::{Disk, uninterrupted};
use super::error::{OutputError, io_error};
use super::identity::is_at;

/// Another run's lock is tried again this often.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Opens and locks `partial`, which is made like a file with the permissions `like`.
pub(super) fn lock(
    disk: &dyn Disk,
    target: &Path,
    partial: &Path,
    wait: Duration,
    like: Option<&Permissions>,
) -> Result<File, OutputError> {
    let started = Instant::now();
    loop {
        let file = uninterrupted(|| disk.open(partial, like))
            .map_err(|source| io_error(partial, "cannot be opened for writing", source))?;
        match file.try_lock() {
            Ok(()) => {
                // Its holder may have made it the output, or removed it, between the opening and the locking.
                if is_at(&file, partial).map_err(|source| io_error(partial, "cannot be looked at", source))? {
                    return Ok(file);
                }
            }
            Err(TryLockError::WouldBlock) if started.elapsed() >= wait => {
                return Err(OutputError::Locked {
                    path: target.display().to_string(),
                    partial: partial.display().to_string(),
                });
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(LOCK_POLL.min(wait.saturating_sub(started.elapsed())));
            }
            Err(TryLockError::Error(source)) => return Err(io_error(partial, "cannot be locked", source)),
        }
    }
}
