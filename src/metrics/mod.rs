//! Per-core counters and histograms: one writer each, merged only when somebody looks.
