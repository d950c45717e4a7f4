/** What a table shows: all of it in memory, or pages of a server that are fetched when they come into sight. */

import { type Failure, aborted, failure } from './api';

export interface Rows<T> {
  readonly length: number;
  /** `undefined`: on its way. */
  at(index: number): T | undefined;
  /** These come into sight. */
  need?(first: number, last: number): void;
}

/** Rows in memory. */
export function inMemory<T>(rows: T[]): Rows<T> {
  return { length: rows.length, at: (index) => rows[index] };
}

const PAGE = 100;
/** Rows on either side of those in sight that are there before somebody comes to them. */
const AHEAD = 80;
/** What only flies past is not fetched: a page is asked for when it is still in sight after so many milliseconds. */
const SETTLE = 50;

/** What a server says of a part of a list. */
export interface Part<T> {
  rows: T[];
  total: number;
}

/** A list that the server orders and filters; a part of it is found by its place. */
export class PlacedRows<T> implements Rows<T> {
  #total = $state(0);
  #version = $state(0);
  #pages = new Map<number, T[]>();
  #asked = new Set<number>();
  #visible: [number, number] = [0, 0];
  #near: [number, number] = [0, 0];
  #settling: ReturnType<typeof setTimeout> | undefined;
  #stale = false;
  #generation = new AbortController();
  #fetch: (skip: number, size: number, signal: AbortSignal) => Promise<Part<T>>;
  /** Nothing was ever shown yet. */
  loading = $state(true);
  failure = $state.raw<Failure | undefined>(undefined);

  constructor(fetch: (skip: number, size: number, signal: AbortSignal) => Promise<Part<T>>) {
    this.#fetch = fetch;
  }

  get length(): number {
    return this.#total;
  }

  at(index: number): T | undefined {
    void this.#version;
    return this.#pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  need(first: number, last: number): void {
    this.#visible = [Math.floor(first / PAGE), Math.floor(Math.max(first, last) / PAGE)];
    this.#near = [Math.floor(Math.max(0, first - AHEAD) / PAGE), Math.floor(Math.min(this.#total - 1, last + AHEAD) / PAGE)];
    if (this.#settling !== undefined || this.#missing().length === 0) return;
    this.#settling = setTimeout(() => {
      this.#settling = undefined;
      if (this.#stale) this.refresh();
      for (const page of this.#missing()) void this.#load(page);
    }, SETTLE);
  }

  #missing(): number[] {
    const [from, to] = this.#near;
    return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index).filter((page) => !this.#pages.has(page));
  }

  /** Fetches anew what is in sight; what is on the screen stays until the answer is there. */
  refresh(): void {
    // Not while somebody scrolls: then what he comes to is fetched, and fresh.
    this.#stale = this.#settling !== undefined;
    if (this.#stale) return;
    const [from, to] = this.#visible;
    for (const page of this.#pages.keys()) if (page < this.#near[0] || page > this.#near[1]) this.#pages.delete(page);
    for (let page = from; page <= to; page += 1) void this.#load(page);
  }

  /** Another list: what was on its way is given up. */
  restart(): void {
    this.#generation.abort();
    this.#generation = new AbortController();
    clearTimeout(this.#settling);
    this.#settling = undefined;
    this.#pages.clear();
    this.#asked.clear();
    this.#visible = [0, 0];
    this.#near = [0, 0];
    this.loading = true;
    void this.#load(0);
  }

  close(): void {
    clearTimeout(this.#settling);
    this.#generation.abort();
  }

  /** The whole list, in as few requests as can be. */
  async all(): Promise<T[]> {
    const rows: T[] = [];
    for (;;) {
      const part = await this.#fetch(rows.length, 1000, this.#generation.signal);
      rows.push(...part.rows);
      if (part.rows.length === 0 || rows.length >= part.total) return rows;
    }
  }

  async #load(page: number): Promise<void> {
    if (this.#asked.has(page)) return;
    this.#asked.add(page);
    const { signal } = this.#generation;
    try {
      const part = await this.#fetch(page * PAGE, PAGE, signal);
      if (signal.aborted) return;
      this.#pages.set(page, part.rows);
      this.#total = part.total;
      this.failure = undefined;
    } catch (error) {
      if (signal.aborted || aborted(error)) return;
      this.failure = failure(error);
    } finally {
      if (!signal.aborted) {
        this.#asked.delete(page);
        const [from, to] = this.#visible;
        // Nobody sees the others.
        if (page >= from && page <= to) this.#version += 1;
        this.loading = false;
      }
    }
  }
}

/** Rows of the first page of such a list, and the most that a server gives at once. */
const FIRST = 100;
const MOST = 1000;

/** A page of a list that only goes forward. */
export interface Forward<T> {
  rows: T[];
  next: string;
}

/** A list that the server gives page after page: the next one is fetched when the end comes into sight. */
export class ForwardRows<T> implements Rows<T> {
  #rows = $state.raw<T[]>([]);
  #next = $state('');
  #asking = false;
  #generation = new AbortController();
  #fetch: (token: string, size: number, signal: AbortSignal) => Promise<Forward<T>>;
  loading = $state(true);
  failure = $state.raw<Failure | undefined>(undefined);

  constructor(fetch: (token: string, size: number, signal: AbortSignal) => Promise<Forward<T>>) {
    this.#fetch = fetch;
  }

  /** One more than there are, while there is more to come. */
  get length(): number {
    return this.#rows.length + (this.#next === '' ? 0 : 1);
  }

  /** How many are known, and whether there are more. */
  get known(): { count: number; more: boolean } {
    return { count: this.#rows.length, more: this.#next !== '' };
  }

  at(index: number): T | undefined {
    return this.#rows[index];
  }

  need(_first: number, last: number): void {
    if (last >= this.#rows.length - 1 && this.#next !== '') void this.#load(this.#next);
  }

  restart(): void {
    this.#generation.abort();
    this.#generation = new AbortController();
    this.#asking = false;
    this.#rows = [];
    this.#next = '';
    this.loading = true;
    void this.#load('');
  }

  /** Fetches anew what is here, the first thousand at most: what fits no longer goes. Rows below that stay. */
  async refresh(same: (a: T, b: T) => boolean): Promise<void> {
    if (this.#asking || this.loading) return;
    const { signal } = this.#generation;
    try {
      const part = await this.#fetch('', Math.min(MOST, Math.max(FIRST, this.#rows.length)), signal);
      if (signal.aborted || this.#asking) return;
      if (part.next === '' || this.#rows.length <= MOST) {
        this.#rows = part.rows;
        this.#next = part.next;
      } else {
        const end = part.rows.at(-1);
        const below = end === undefined ? 0 : this.#rows.findIndex((row) => same(row, end)) + 1;
        const kept = this.#rows.slice(below).filter((row) => !part.rows.some((fresh) => same(row, fresh)));
        this.#rows = [...part.rows, ...kept];
      }
      this.failure = undefined;
    } catch (error) {
      if (!signal.aborted && !aborted(error)) this.failure = failure(error);
    }
  }

  close(): void {
    this.#generation.abort();
  }

  async all(): Promise<T[]> {
    const rows: T[] = [];
    let token = '';
    do {
      const part = await this.#fetch(token, MOST, this.#generation.signal);
      rows.push(...part.rows);
      token = part.next;
    } while (token !== '');
    return rows;
  }

  async #load(token: string): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    const { signal } = this.#generation;
    try {
      const part = await this.#fetch(token, FIRST, signal);
      if (signal.aborted) return;
      this.#rows = token === '' ? part.rows : [...this.#rows, ...part.rows];
      this.#next = part.next;
      this.failure = undefined;
    } catch (error) {
      if (signal.aborted || aborted(error)) return;
      this.failure = failure(error);
    } finally {
      if (!signal.aborted) {
        this.#asking = false;
        this.loading = false;
      }
    }
  }
}
