//! Times and durations as the messages carry them.

use std::time::Duration;

use jiff::Timestamp;

/// A time or duration in a message that stands for none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Outside of the calendar, or nanoseconds outside of 0 to 999,999,999.
    #[error("{seconds}s and {nanos}ns are no time from year 1 to 9999")]
    NoTime {
        /// Seconds since 1970 as given.
        seconds: i64,
        /// Nanoseconds as given.
        nanos: i32,
    },
    /// Negative, or nanoseconds outside of 0 to 999,999,999.
    #[error("{seconds}s and {nanos}ns are no duration from zero on")]
    NoDuration {
        /// Seconds as given.
        seconds: i64,
        /// Nanoseconds as given.
        nanos: i32,
    },
}

/// A time for a message.
#[must_use]
pub fn to_proto(time: Timestamp) -> prost_types::Timestamp {
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    // The message counts nanoseconds forward, before 1970 too.
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}

/// A time out of a message.
///
/// # Errors
/// [`TimeError::NoTime`].
pub fn from_proto(time: &prost_types::Timestamp) -> Result<Timestamp, TimeError> {
    let no_time = TimeError::NoTime { seconds: time.seconds, nanos: time.nanos };
    if !(0..1_000_000_000).contains(&time.nanos) {
        return Err(no_time);
    }
    Timestamp::new(time.seconds, time.nanos).map_err(|_| no_time)
}

/// A duration for a message. Saturates far beyond any lifetime.
#[must_use]
pub fn duration_to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration out of a message.
///
/// # Errors
/// [`TimeError::NoDuration`].
pub fn duration_from_proto(duration: &prost_types::Duration) -> Result<Duration, TimeError> {
    let no_duration = || TimeError::NoDuration { seconds: duration.seconds, nanos: duration.nanos };
    let seconds = u64::try_from(duration.seconds).map_err(|_| no_duration())?;
    match u32::try_from(duration.nanos) {
        Ok(nanos @ 0..1_000_000_000) => Ok(Duration::new(seconds, nanos)),
        _ => Err(no_duration()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_survive_the_message(seconds in -62_000_000_000_i64..253_000_000_000, nanos in 0..1_000_000_000_i32) {
            let proto = prost_types::Timestamp { seconds, nanos };
            prop_assert_eq!(to_proto(from_proto(&proto).unwrap()), proto);
        }

        #[test]
        fn durations_survive_the_message(seconds in 0..1_u64 << 60, nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(duration_from_proto(&duration_to_proto(duration)), Ok(duration));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (seconds, nanos) in [(0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)] {
            assert!(from_proto(&prost_types::Timestamp { seconds, nanos }).is_err());
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, 1_000_000_000)] {
            assert!(duration_from_proto(&prost_types::Duration { seconds, nanos }).is_err());
        }
    }
}
