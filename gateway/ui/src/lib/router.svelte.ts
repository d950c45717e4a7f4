/** The address: everything that a page shows can be found again by it. */

/** A page of the dashboard and what its address says. */
export interface Place {
  page: string;
  /** The identity in the path, such as a host's. */
  id: string;
}

/** Which page a path leads to. */
export function placeOf(path: string): Place {
  const [page = '', id = ''] = path.replace(/^\/+|\/+$/g, '').split('/');
  const pages: Record<string, string> = { hosts: 'host', vms: 'vm', violations: 'violation' };
  let decoded = id;
  try {
    decoded = decodeURIComponent(id);
  } catch {
    // Shown as it came: the page then says that there is no such thing.
  }
  if (page === '') return { page: 'fleet', id: '' };
  const detail = pages[page];
  return id !== '' && detail ? { page: detail, id: decoded } : { page, id: '' };
}

class Router {
  #url = $state.raw(new URL(globalThis.location?.href ?? 'http://localhost/'));

  constructor() {
    globalThis.addEventListener?.('popstate', () => (this.#url = new URL(location.href)));
  }

  get path(): string {
    return this.#url.pathname;
  }

  get query(): URLSearchParams {
    return this.#url.searchParams;
  }

  get place(): Place {
    return placeOf(this.#url.pathname);
  }

  /** Path and query, to come back to. */
  get here(): string {
    return this.#url.pathname + this.#url.search;
  }

  get(name: string): string {
    return this.#url.searchParams.get(name) ?? '';
  }

  go(to: string, replace = false): void {
    const url = new URL(to, location.href);
    if (url.href === location.href) return;
    const samePage = url.pathname === location.pathname;
    history[replace ? 'replaceState' : 'pushState'](null, '', url);
    this.#url = url;
    if (!samePage) scrollTo(0, 0);
  }

  /** Changes parts of the query; an empty value takes one out. */
  set(changes: Record<string, string>, replace = true): void {
    const url = new URL(this.#url);
    for (const [name, value] of Object.entries(changes)) {
      if (value === '') url.searchParams.delete(name);
      else url.searchParams.set(name, value);
    }
    this.go(url.pathname + url.search, replace);
  }
}

export const router = new Router();

/** The address of a page, with a query. */
export function link(path: string, query: Record<string, string> = {}): string {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== '')).toString();
  return text === '' ? path : `${path}?${text}`;
}

export const hostLink = (id: string): string => `/hosts/${encodeURIComponent(id)}`;
export const vmLink = (id: string): string => `/vms/${encodeURIComponent(id)}`;
export const violationLink = (id: string): string => `/violations/${encodeURIComponent(id)}`;

/** Follows links within the dashboard without loading it anew. */
export function follow(event: MouseEvent): void {
  const anchor = (event.target as Element | null)?.closest?.('a');
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!anchor || !plain || event.defaultPrevented) return;
  if (anchor.origin !== location.origin || anchor.target || anchor.hasAttribute('download')) return;
  if (/^\/(docs|openapi\.json|api)/.test(anchor.pathname)) return;
  event.preventDefault();
  router.go(anchor.pathname + anchor.search);
}
