/** Fields of messages as the screen needs them. */

import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt';

/** Milliseconds since 1970. */
export function millis(time: Timestamp | undefined): number | undefined {
  return time === undefined ? undefined : Number(time.seconds) * 1000 + time.nanos / 1e6;
}

/** Seconds of a length of time. */
export function seconds(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : Number(duration.seconds) + duration.nanos / 1e9;
}

/** A figure that fits a number: bytes stay below 2^53 on any host. */
export function num(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

/** A time for a request. */
export function timestamp(ms: number): { seconds: bigint; nanos: number } {
  const whole = Math.floor(ms / 1000);
  return { seconds: BigInt(whole), nanos: Math.round((ms - whole * 1000) * 1e6) };
}

/** A length of time for a request. */
export function duration(total: number): { seconds: bigint; nanos: number } {
  const whole = Math.floor(total);
  return { seconds: BigInt(whole), nanos: Math.round((total - whole) * 1e9) };
}
