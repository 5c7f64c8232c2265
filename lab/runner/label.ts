/** How a run is called in tables and messages: by its variant, and by its strategy if it hints. */
export function labelOf(run: {
  readonly variant: string | null;
  readonly strategy: string;
}): string {
  const { variant, strategy } = run;
  if (variant === null) return strategy;
  return strategy === 'none' ? variant : `${variant} ${strategy}`;
}
