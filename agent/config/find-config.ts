import { existsSync } from 'node:fs';

/** The first that exists is used. The system's own comes first: a file in a folder of somebody else must not win. */
export const configFiles = ['/etc/failkit/failkit.yaml', 'failkit.yaml'] as const;

/** Null where there is none. */
export function findConfigFile(): string | null {
  return configFiles.find((file) => existsSync(file)) ?? null;
}
