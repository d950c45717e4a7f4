/** How long to wait before the next attempt, in milliseconds: soon at first, never longer than ten seconds, never all at once. */
export function pause(failures: number, random: number): number {
  const longest = Math.min(10_000, 500 * 2 ** Math.max(0, failures - 1));
  return longest * (0.75 + random / 4);
}
