/** What an event of the audit log changed, field by field. */

import type { AuditEvent } from '../gen/memharvest/registry/v1/audit_service_pb';

export interface Change {
  field: string;
  before: string;
  after: string;
}

function fields(json: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (value: unknown, path: string): void => {
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
      for (const [name, inner] of Object.entries(value)) walk(inner, path === '' ? name : `${path}.${name}`);
    } else if (value !== null && value !== undefined) {
      found.set(path === '' ? 'value' : path, typeof value === 'string' ? value : JSON.stringify(value));
    }
  };
  if (json === '') return found;
  try {
    walk(JSON.parse(json), '');
  } catch {
    // Shown as it was written down.
    found.set('value', json);
  }
  return found;
}

/** Fields that differ, in the order of their names. */
export function changes(event: Pick<AuditEvent, 'beforeJson' | 'afterJson'>): Change[] {
  const [before, after] = [fields(event.beforeJson), fields(event.afterJson)];
  return [...new Set([...before.keys(), ...after.keys()])]
    .sort()
    .filter((field) => before.get(field) !== after.get(field))
    .map((field) => ({ field, before: before.get(field) ?? '', after: after.get(field) ?? '' }));
}
