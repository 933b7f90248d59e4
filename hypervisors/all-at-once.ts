/** A few different things at once. The first failure in their order is thrown once all of them have ended, so that nothing outlives this call. */
export async function allAtOnce<const Works extends readonly Promise<unknown>[]>(
  works: Works,
): Promise<{ -readonly [K in keyof Works]: Awaited<Works[K]> }> {
  await Promise.allSettled(works);
  return await Promise.all(works);
}
