/** How often something random is tried: a quarter as often in the quick lane. `npm test` tries all. */
export function timesTried(usual: number): number {
  return process.env.FAILKIT_QUICK === '1' ? Math.ceil(usual / 4) : usual;
}
