//! One step of an optimizer as numbers, the same for every parameter and every backend.

/// The arithmetic of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// `torch.optim.AdamW`.
    AdamW(AdamW),
    /// `torch.optim.RMSprop` without momentum.
    RmsProp(RmsProp),
}

/// One step of AdamW, bias corrections worked in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta_1: f64,
    /// Decay of the mean of squared gradients.
    pub beta_2: f64,
    /// √(1 − beta_2^step).
    pub root_correction_2: f64,
    /// Added outside the square root.
    pub eps: f64,
    /// learning rate / (1 − beta_1^step).
    pub rate: f64,
    /// 1 − learning rate · weight decay.
    pub kept: f64,
}

/// One step of RMSprop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// Decay of the mean of squared gradients.
    pub alpha: f64,
    /// Added outside the square root.
    pub eps: f64,
    /// The learning rate.
    pub rate: f64,
    /// The share of a weight added to its gradient.
    pub weight_decay: f64,
}
