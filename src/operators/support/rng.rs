//! The source of all randomness: (seed, iteration, name), never the order of calls.

/// The random numbers of one node in one iteration.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// The pipeline's seed.
    pub seed: u64,
    /// The iteration; 0 outside the loop.
    pub iteration: u32,
}

impl Stream {
    /// A 32-byte seed: `purpose` keeps different uses apart, `name` is a prompt_id, `index` a
    /// response_index or an epoch.
    pub fn bytes(self, purpose: &str, name: &str, index: u32) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for text in [purpose, name] {
            // Lengths first, so that two texts never run together.
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.iteration.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    /// A number for a random order.
    pub fn number(self, purpose: &str, name: &str, index: u32) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes(purpose, name, index);
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// The random selection orders prompts by this number of `prompt_id`.
    pub fn draw(self, prompt_id: &str) -> i64 {
        self.number("select", prompt_id, 0) as i64
    }

    /// A pair with a random rejected response orders the responses of `prompt_id` by this number.
    pub fn draw_response(self, prompt_id: &str, response_index: i32) -> i64 {
        self.number("pair", prompt_id, response_index as u32) as i64
    }
}
