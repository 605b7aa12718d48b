//! The wall clock: for records and narration only. Time-outs go by `std::time::Instant`, which no clock jump moves.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::value::entry::Moment;
use crate::value::time::Time;

/// Now.
pub fn now() -> Time {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN + 1, |micros| -micros),
    };
    Time(micros)
}

/// When a file was last written.
pub fn written(metadata: &Metadata) -> Time {
    Time(metadata.mtime().saturating_mul(1_000_000).saturating_add(metadata.mtime_nsec() / 1000))
}

/// How long this thread has computed: a limit to that is the same on a busy machine.
pub fn computed() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or_default(), u32::try_from(spent.tv_nsec).unwrap_or_default())
}

/// Now, by the clock that inode times are taken from (`CLOCK_REALTIME_COARSE`): a change after this call has a time that
/// is not before it. So a stamp whose ctime is not before it may hide a change to come, and cannot be trusted.
pub fn coarse_now() -> Moment {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Moment { seconds: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or_default() }
}
