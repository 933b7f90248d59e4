import { returnedBy } from './vim25/soap.ts';
import { dateOf } from './vim25/soap-xml.ts';
import { spelled, thumbprintOf } from './vim25/trusted-agent.ts';
import type { VimSession } from './vim25/vim-session.ts';

/** The server itself: who it is, and what time it has. Logs in to find out. */
export interface ExaminedServer {
  readonly product: string;
  readonly apiVersion: string;
  /** SHA-256, as `AA:BB:…`. */
  readonly thumbprint: string;
  readonly certificateValidTo: Date;
  /** Positive: it is ahead of this host. */
  readonly clockAheadMs: number;
}

export async function examineServer(session: VimSession, signal: AbortSignal): Promise<ExaminedServer> {
  const { about } = await session.content(signal);
  const asked = Date.now();
  const instance = { type: 'ServiceInstance', id: 'ServiceInstance' };
  const response = await session.call('CurrentTime', instance, [], signal, { repeatable: true });
  const here = (asked + Date.now()) / 2;
  const there = dateOf(returnedBy(response, session.where));
  const { certificate } = session;
  return {
    product: about.product,
    apiVersion: about.apiVersion,
    thumbprint: certificate === null ? 'none' : spelled(thumbprintOf(certificate)),
    certificateValidTo: new Date(certificate?.validTo ?? Number.NaN),
    clockAheadMs: there === null ? 0 : there.getTime() - here,
  };
}
