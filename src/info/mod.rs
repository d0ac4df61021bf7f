//! Admin commands over the info protocol: configuration, statistics, DC control.
