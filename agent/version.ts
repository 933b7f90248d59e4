import { existsSync, readFileSync } from 'node:fs';
import * as z from 'zod';

const packageFields = z.object({ version: z.string() });

/** The version in package.json, which lies one folder up in the sources and two up in a build. */
export function agentVersion(): string {
  const places = ['../package.json', '../../package.json'].map((path) => new URL(path, import.meta.url));
  const found = places.find((place) => existsSync(place));
  if (found === undefined) return 'unknown';
  return packageFields.parse(JSON.parse(readFileSync(found, 'utf8'))).version;
}
