import { it } from 'vitest';
import { fuzzRequests } from './fuzzed-requests.ts';

it('whatever bytes a client sends, the server goes on, in bounded memory, and others are served', () =>
  fuzzRequests(400));
