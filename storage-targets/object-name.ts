import { NameInvalid } from './errors.ts';

const nameBytesMax = 512;
const partBytesMax = 255;
const nameShape = /^[a-z0-9._-]+(?:\/[a-z0-9._-]+)*$/;
const prefixShape = /^[a-z0-9/._-]*$/;

export function isObjectName(name: string): boolean {
  const parts = name.split('/');
  return (
    nameShape.test(name) &&
    name.length <= nameBytesMax &&
    parts.every((part) => part !== '.' && part !== '..' && part.length <= partBytesMax)
  );
}

/** Throws NameInvalid unless `name` is an object name of the contract; so no name can leave its directory or prefix. */
export function checkObjectName(name: string): void {
  if (!isObjectName(name)) {
    throw new NameInvalid(
      `${JSON.stringify(name)} is not an object name: [a-z0-9/._-], 1 to ${nameBytesMax} bytes, no empty, . or .. part`,
    );
  }
}

/** A listing prefix is any beginning of a name, so it may be empty and may end in a slash. */
export function checkListPrefix(prefix: string): void {
  const folders = prefix.split('/').slice(0, -1);
  if (!prefixShape.test(prefix) || folders.some((part) => part === '' || part === '.' || part === '..')) {
    throw new NameInvalid(`${JSON.stringify(prefix)} is not the beginning of an object name`);
  }
}

/** The folder part of a name or prefix with its slash, `` at the top. */
export function folderOf(name: string): string {
  return name.slice(0, name.lastIndexOf('/') + 1);
}
