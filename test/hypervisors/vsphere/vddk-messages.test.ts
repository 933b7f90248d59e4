/** What nbdkit and VDDK print comes in pieces of any size, and may hold what nobody is to see. */
import { describe, expect, it } from 'vitest';
import { Messages } from '../../../hypervisors/vsphere/vddk/messages.ts';

const secret = 'tr0ub4dor&3-and-more';
const session = 'vmware_soap_session="52c0ffee-1234"';

describe('what nbdkit prints', () => {
  it.each([1, 3, 7, 64, 10_000])('is shown without secrets, in pieces of %i characters', (pieceChars) => {
    for (const text of [
      `nbdkit: vddk[1]: error: login with ${secret} and ${session} failed\n`,
      `${'x'.repeat(700)}${secret}${'y'.repeat(490)}`,
      `${'x'.repeat(700)}${session} ${'y'.repeat(480)}`,
      `${'x'.repeat(490)}${secret}\n`,
    ]) {
      const messages = new Messages([secret]);
      for (let at = 0; at < text.length; at += pieceChars) messages.add(text.slice(at, at + pieceChars));
      const words = messages.words();
      expect(words).not.toBe('');
      for (let at = 0; at + 8 <= secret.length; at++) expect(words).not.toContain(secret.slice(at, at + 8));
      expect(words).not.toContain('c0ffee');
    }
  });

  it('names the newest error of VDDK, whatever is said after it', () => {
    const messages = new Messages([]);
    messages.add(
      '2026-05-05 info [NFC] Error 14009 (The server refused connection) at 5510.\nnbdkit: debug: accepted\n',
    );
    expect([messages.vixError, messages.words()]).toEqual([14_009, 'VDDK error 14009 (The server refused connection)']);
  });

  it('is kept for its newest lines only', () => {
    const messages = new Messages([]);
    for (let i = 0; i < 10_000; i++) messages.add(`line ${i}\n`);
    expect(messages.words()).toBe('line 9997: line 9998: line 9999');
  });
});
