import type { MigrateParams, RunEnd, StrategyName } from '../../protocol/control.ts';
import type { MachineSettings } from '../plan/settings.ts';
import type { FigureName } from './figures.ts';
import type { Bound, FactorBound } from './schema.ts';

/** A scenario with every default filled in and every quantity in base units: a machine and its steps. */
export interface Scenario extends MachineSettings {
  readonly name: string;
  readonly description: string;
  readonly strategies: readonly StrategyName[];
  readonly steps: readonly Step[];
  /** Which of the scenario's variants this is; null: the scenario itself. */
  readonly variant: string | null;
  /** Each complete in itself. None: the scenario itself is the only one. */
  readonly variants: readonly Scenario[];
}

export type Victim = 'source' | 'destination' | 'guest';

export type Step =
  | { readonly kind: 'boot' }
  | { readonly kind: 'workload'; readonly line: string }
  | { readonly kind: 'waitFor'; readonly durationNs: number }
  | { readonly kind: 'waitUntilMigrateAt' }
  | { readonly kind: 'inflate'; readonly sizeBytes: number }
  | { readonly kind: 'deflate'; readonly sizeBytes: number }
  | { readonly kind: 'stats'; readonly intervalNs: number }
  | { readonly kind: 'hint'; readonly acknowledgeOnStop: boolean }
  /** `waits` false: it gets on in the background. */
  | { readonly kind: 'migrate'; readonly params: MigrateParams; readonly waits: boolean }
  | { readonly kind: 'waitForEnd'; readonly end: RunEnd; readonly atMostNs: number }
  | { readonly kind: 'target'; readonly sizeBytes: number }
  | { readonly kind: 'stop' | 'cont' | 'cancel' | 'continue' }
  | { readonly kind: 'limits'; readonly params: Partial<MigrateParams> }
  /** `stallNs` null: the link is cut. */
  | { readonly kind: 'link'; readonly stallNs: number | null }
  | { readonly kind: 'kill'; readonly victim: Victim }
  | { readonly kind: 'verify' }
  /** A line for the shell of a real kernel. */
  | { readonly kind: 'shell'; readonly line: string; readonly where: string }
  /** A line on the guest's console; `where`: file and line of the step. */
  | {
      readonly kind: 'console';
      readonly step: string;
      readonly line: string;
      readonly where: string;
    }
  | {
      readonly kind: 'expect';
      /** Names of strategies and variants; null: all. */
      readonly for: readonly string[] | null;
      readonly bounds: readonly FigureBound[];
    }
  /** As `expect`, but relative to the same figures of the variant `to`. */
  | {
      readonly kind: 'compare';
      readonly to: string;
      readonly for: readonly string[] | null;
      readonly bounds: readonly FigureFactor[];
    };

export interface FigureBound {
  readonly figure: FigureName;
  readonly bound: Bound;
}

export interface FigureFactor {
  readonly figure: FigureName;
  readonly bound: FactorBound;
}
