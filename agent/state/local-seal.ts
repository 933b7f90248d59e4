import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  type KeyObject,
  randomBytes,
  randomFillSync,
} from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createDurableFile } from '../durable-files.ts';
import { StateUnusable } from './errors.ts';

/** Seals what the agent keeps locally (map pages, run journal, machine keys) under a key of the state folder. */

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const othersMayRead = 0o077;

/** Random bytes for so many nonces are asked of the system at once: each question takes as long as sealing a page. */
const noncesAtOnce = 256;

export class LocalSeal {
  /** From plain bytes Node would make one for each page, which takes as long as sealing it. */
  readonly #key: KeyObject;
  readonly #nonces = new Uint8Array(noncesAtOnce * nonceBytes);
  #noncesLeft = 0;

  private constructor(key: KeyObject) {
    this.#key = key;
  }

  /** Opens the key file, or makes it with mode 0600. */
  static open(file: string): LocalSeal {
    // Durable before it is used: what is sealed under a lost key is lost, too.
    if (!existsSync(file)) createDurableFile(file, randomBytes(keyBytes));
    if ((statSync(file).mode & othersMayRead) !== 0)
      throw new StateUnusable(`${file} can be read by others: chmod 600 ${file}`);
    const key = readFileSync(file);
    if (key.length !== keyBytes)
      throw new StateUnusable(`${file} is no key file of ${keyBytes} bytes: remove it and the folder's state with it`);
    return new LocalSeal(createSecretKey(key));
  }

  /** `binding` says what the bytes are; they open under the same one only. */
  seal(bytes: Uint8Array, binding: string): Uint8Array {
    const nonce = this.#nextNonce();
    const encrypt = createCipheriv('aes-256-gcm', this.#key, nonce, { authTagLength: tagBytes });
    encrypt.setAAD(Buffer.from(binding));
    return Buffer.concat([nonce, encrypt.update(bytes), encrypt.final(), encrypt.getAuthTag()]);
  }

  #nextNonce(): Uint8Array {
    if (this.#noncesLeft === 0) {
      randomFillSync(this.#nonces);
      this.#noncesLeft = noncesAtOnce;
    }
    const from = --this.#noncesLeft * nonceBytes;
    return this.#nonces.subarray(from, from + nonceBytes);
  }

  /** Null when the bytes were altered or belong elsewhere: the caller does without them. */
  unseal(sealed: Uint8Array, binding: string): Uint8Array | null {
    if (sealed.length < nonceBytes + tagBytes) return null;
    const decrypt = createDecipheriv('aes-256-gcm', this.#key, sealed.subarray(0, nonceBytes), {
      authTagLength: tagBytes,
    });
    decrypt.setAAD(Buffer.from(binding));
    decrypt.setAuthTag(sealed.subarray(sealed.length - tagBytes));
    const bytes = decrypt.update(sealed.subarray(nonceBytes, sealed.length - tagBytes));
    try {
      decrypt.final();
    } catch {
      return null;
    }
    return bytes;
  }
}
