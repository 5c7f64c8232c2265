import type { GuestConfig } from '../../protocol/index.ts';
import type { HintingStrategy } from '../balloon/hinting.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { AllocStrategy } from './alloc.ts';
import { IterateStrategy } from './iterate.ts';
import { OracleStrategy } from './oracle.ts';

/** The strategy that the configuration names; null for `none`: the driver declines the feature. */
export function createStrategy(
  kernel: Kernel,
  config: Pick<GuestConfig, 'strategy' | 'iterate'>,
): HintingStrategy | null {
  switch (config.strategy) {
    case 'none':
      return null;
    case 'iterate':
      return new IterateStrategy(kernel, config.iterate);
    case 'alloc':
      return new AllocStrategy(kernel, 'alloc');
    case 'alloc-ack':
      return new AllocStrategy(kernel, 'alloc-ack');
    case 'oracle':
      return new OracleStrategy(kernel);
  }
}
