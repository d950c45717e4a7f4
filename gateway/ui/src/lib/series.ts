/** Columns of a chart from windows of history and what came after them. */

/** A column of figures; null: not known. */
export type Column = (number | null)[];

/** A point of several series. */
export interface Point {
  /** Milliseconds since 1970. */
  at: number;
  values: (number | undefined)[];
}

/**
 * Times in seconds and one column a series, oldest first. Between points that are further apart than `gapMs` nothing is drawn:
 * what was not measured is not known.
 */
export function columns(points: Point[], series: number, gapMs: number): [number[], ...Column[]] {
  const times: number[] = [];
  const out: Column[] = Array.from({ length: series }, () => []);
  let last = -Infinity;
  for (const point of points) {
    if (point.at <= last) continue;
    if (last !== -Infinity && point.at - last > gapMs) {
      times.push((last + point.at) / 2000);
      for (const column of out) column.push(null);
    }
    times.push(point.at / 1000);
    out.forEach((column, index) => column.push(point.values[index] ?? null));
    last = point.at;
  }
  return [times, ...out];
}

/** History, then what happened since: the live points after the last window. */
export function joined(history: Point[], live: Point[]): Point[] {
  const last = history.at(-1)?.at ?? -Infinity;
  return [...history, ...live.filter((point) => point.at > last)];
}

/** A window that is not over holds the hosts of a part of the fleet: it is left out. */
export function whole<T extends { start: number; length: number }>(windows: T[], now: number): T[] {
  return windows.filter((window) => window.start + window.length <= now);
}
