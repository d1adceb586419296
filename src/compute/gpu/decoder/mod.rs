//! The transformer on a GPU, for sampling: matrix products of cubek, and kernels of our own in
//! cubecl between them.
//!
//! Computes what [`Decoder::forward`](crate::compute::Decoder::forward) computes, on sequences of
//! any lengths without padding. Weights, keys, values and what products read are bf16 or f32, all
//! else is f32. Knows nothing of seeds, responses or losses.

mod cache;
pub(super) mod launch;
pub(super) mod weights;

use std::collections::HashMap;
use std::fmt;
use std::thread::{self, ThreadId};

use burn::tensor::Bytes;
use cubecl::client::{Client, Graph};
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl::std::tensor::TensorHandle;

use super::kernels::{self, Choice, Normed, PLACE, SAMPLED, SAMPLERS, TILE, UNITS};
use super::{BF16, F32, I32, ROWS};
use crate::compute::reference::parameters::host_values;
use crate::compute::{CausalLm, Span};
use crate::model::ModelError;
use cache::{End, Places};
use weights::{GpuLayer, GpuNorm, Upload, Weight};

/// A model's weights, laid out for a GPU.
pub struct GpuDecoder {
    client: Client,
    /// Of weights, keys, values and the factors of products.
    element: ElemType,
    vocab_size: usize,
    hidden_size: usize,
    /// From hidden states to logits, and, transposed, from tokens to embeddings when nothing else
    /// is.
    head: Weight,
    /// `[vocab_size, hidden_size]`.
    embedding: Option<TensorHandle>,
    layers: Vec<GpuLayer>,
    norm: GpuNorm,
    /// `[head_dim / 2]`, f32.
    angles: TensorHandle,
}

/// Keys and values of many sequences, in the memory of the GPU.
pub struct GpuCache {
    places: Places,
    /// `[positions, key_value_heads · head_dim]` of each layer.
    keys_values: Vec<[TensorHandle; 2]>,
    /// The stream behind each sequence's last token, before the last norm: `[sequences,
    /// hidden_size]`.
    kept: TensorHandle,
    scratch: Scratch,
    /// Passes over so many rows, each the next of its sequence, as they were recorded; `None` where
    /// that failed.
    recorded: HashMap<usize, Option<Recorded>>,
    /// A position and a sequence of no meaning.
    spare: [usize; 2],
    /// The thread with the stream of the work.
    thread: ThreadId,
}

/// A pass with one launch: its hundreds of launches one by one take longer than the work on the
/// GPU.
struct Recorded {
    graph: Graph,
    places: TensorHandle,
    lasts: TensorHandle,
    /// The memory of the graph's kernels.
    _scratch: Scratch,
}

/// Memory of a pass, reused by every layer and the next pass; for so many rows.
#[derive(Clone)]
struct Scratch {
    rows: usize,
    x: Handle,
    normed: Handle,
    qkv: Handle,
    queries: Handle,
    attended: Handle,
    change: Handle,
    gate_up: Handle,
    activated: Handle,
}

/// How tokens are sampled.
#[derive(Clone, Copy, Debug)]
pub struct GpuSampling {
    /// `None` takes the likeliest token.
    pub temperature: Option<f64>,
    /// See [`Sampling`](crate::generation::Sampling).
    pub top_p: f64,
    /// See [`Sampling`](crate::generation::Sampling).
    pub top_k: usize,
    /// See [`Sampling`](crate::generation::Sampling).
    pub min_p: f64,
    /// See [`Penalties`](crate::generation::Penalties).
    pub repetition_penalty: f64,
    /// See [`Penalties`](crate::generation::Penalties).
    pub presence_penalty: f64,
    /// Tokens with an id below it are drawn.
    pub vocabulary_size: usize,
}

/// The change of one logit before a token is drawn.
#[derive(Clone, Copy, Debug)]
pub struct GpuChange {
    /// The row among the sampled sequences.
    pub row: usize,
    /// The token.
    pub token: i32,
    /// Whether the repetition penalty is for it.
    pub is_repeated: bool,
    /// Whether the presence penalty is for it.
    pub is_present: bool,
    /// Whether it may not be drawn.
    pub is_forbidden: bool,
}

/// A sampled token.
#[derive(Clone, Copy, Debug)]
pub struct GpuSample {
    /// Its id.
    pub token: i32,
    /// Its natural log probability under the sampled distribution; 0 for the likeliest.
    pub logprob: f32,
    /// The first token with a logit that was not finite, and this logit.
    pub broken: Option<(usize, f32)>,
}

/// Of the weights, keys and values of a [`GpuDecoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuElement {
    /// 8 bits of precision, as most models are published.
    Bf16,
    /// 24 bits of precision. Matrix products may use the GPU's shorter formats for it all the same.
    F32,
}

impl fmt::Debug for GpuCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GpuCache").field("places", &self.places).finish_non_exhaustive()
    }
}

impl fmt::Debug for GpuDecoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GpuDecoder").field("element", &self.element).field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl GpuDecoder {
    /// A language model's weights.
    ///
    /// # Errors
    /// When a parameter cannot be read.
    pub fn new(model: CausalLm, device: &cubecl::Device, element: GpuElement) -> Result<Self, ModelError> {
        let client = device.client();
        let element = match element {
            GpuElement::Bf16 => BF16,
            GpuElement::F32 => F32,
        };
        let upload = Upload { client: &client, element };
        let CausalLm { model: decoder, lm_head, .. } = model;
        let [vocab_size, hidden_size] = decoder.embed_tokens.weight.val().dims();
        let table = host_values(decoder.embed_tokens.weight.val())?;
        let (head, embedding) = match &lm_head {
            Some(head) => (upload.projection(&[head])?.weight, Some(upload.matrix(&table, [vocab_size, hidden_size]))),
            None => (upload.weight(table, vocab_size, hidden_size), None),
        };
        // Models with others are refused before a run.
        let angles = upload.numbers(decoder.ropes().first().map_or(&[][..], |rope| &rope.frequencies));
        let norm = upload.norm(&decoder.norm)?;
        let layers = decoder.layers.into_iter().map(|layer| GpuLayer::new(layer, &upload)).collect::<Result<_, _>>()?;
        Ok(Self { client, element, vocab_size, hidden_size, head, embedding, layers, norm, angles })
    }

    /// An empty cache of so many positions, for at most so many sequences at once.
    pub fn new_cache(&self, positions: usize, sequences: usize) -> GpuCache {
        let of_layer = |layer: &GpuLayer| [(); 2].map(|()| self.empty([positions + 1, layer.shape.key_width()], self.element));
        GpuCache {
            places: Places::new(positions),
            keys_values: self.layers.iter().map(of_layer).collect(),
            kept: self.empty([sequences + 1, self.hidden_size], F32),
            scratch: self.scratch(0),
            recorded: HashMap::new(),
            spare: [positions, sequences],
            thread: thread::current().id(),
        }
    }

    /// Bytes of keys and values of a position in all layers.
    pub fn cache_bytes_per_position(&self) -> usize {
        self.layers.iter().map(|layer| 2 * layer.shape.key_width() * self.element.size()).sum()
    }

    fn empty(&self, shape: [usize; 2], element: ElemType) -> TensorHandle {
        let bytes = shape[0] * shape[1] * element.size();
        TensorHandle::new_contiguous(shape, self.client.empty(bytes.max(1)), element)
    }

    /// Memory for so many rows, and for the padding rows of products.
    fn rows(&self, rows: usize, width: usize, element: ElemType) -> TensorHandle {
        let TensorHandle { handle, .. } = self.empty([rows.next_multiple_of(ROWS), width], element);
        TensorHandle::new_contiguous([rows, width], handle, element)
    }

    /// For so many rows, a multiple of [`ROWS`].
    fn scratch(&self, rows: usize) -> Scratch {
        let layer = |width: fn(&GpuLayer) -> usize| self.layers.iter().map(width).max().unwrap_or(0);
        let memory = |width: usize, element: ElemType| self.client.empty((rows * width * element.size()).max(1));
        let (queries, inner) = (layer(|layer| layer.shape.query_width()), layer(|layer| layer.inner()));
        Scratch {
            rows,
            x: memory(self.hidden_size, F32),
            normed: memory(self.hidden_size, self.element),
            qkv: memory(layer(|layer| layer.shape.qkv_width()), F32),
            queries: memory(queries, F32),
            attended: memory(queries, self.element),
            change: memory(self.hidden_size, F32),
            gate_up: memory(2 * inner, F32),
            activated: memory(inner, self.element),
        }
    }

    /// Reads tokens; the spans' sequences hold them afterwards. A sequence has one span only, and
    /// must have room for it.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, or a product cannot be launched.
    pub fn forward(&self, spans: &[Span<'_>], cache: &mut GpuCache) -> Result<(), ModelError> {
        let (mut places, mut lasts) = (Vec::new(), Vec::with_capacity(2 * spans.len()));
        for span in spans {
            let End { position, prefix_start, prefix, own_start } = cache.places.end(span.sequence);
            for (past, &token) in span.tokens.iter().enumerate() {
                if !(0..self.vocab_size as i64).contains(&i64::from(token)) {
                    let problem = format!("token id {token}, expected 0 to {}", self.vocab_size.saturating_sub(1));
                    return Err(ModelError::Sequences(problem));
                }
                places.extend([token, (position + past) as i32, prefix_start as i32, prefix as i32, own_start as i32]);
            }
            lasts.extend([(places.len() / PLACE) as i32 - 1, span.sequence as i32]);
            cache.places.advance(span.sequence, span.tokens.len());
        }
        let rows = places.len() / PLACE;
        if rows == 0 {
            return Ok(());
        }
        let padded = rows.next_multiple_of(TILE);
        if padded > cache.scratch.rows {
            cache.scratch = self.scratch(rows.next_multiple_of(ROWS));
        }
        if spans.iter().any(|span| span.tokens.len() > 1) {
            let (places, lasts) = (self.integers(&places), self.integers(&lasts));
            return self.pass(rows, &places, &lasts, cache);
        }
        // The same passes come again and again: rows are padded, to have few different passes.
        let [position, sequence] = cache.spare.map(|number| number as i32);
        for row in rows..padded {
            places.extend([0, 0, 0, 0, position]);
            lasts.extend([row as i32, sequence]);
        }
        match cache.recorded.get(&padded) {
            Some(Some(recorded)) => {
                self.client.write(&recorded.places.handle, Bytes::from_elems(places));
                self.client.write(&recorded.lasts.handle, Bytes::from_elems(lasts));
                recorded.replay()
            }
            Some(None) => self.pass(padded, &self.integers(&places), &self.integers(&lasts), cache),
            None => self.record(padded, &places, &lasts, cache),
        }
    }

    /// Makes a pass and records it for the next time.
    fn record(&self, rows: usize, places: &[i32], lasts: &[i32], cache: &mut GpuCache) -> Result<(), ModelError> {
        let (places, lasts) = (self.integers(places), self.integers(lasts));
        let is_prepared = self.client.graph_prepare().is_ok();
        self.pass(rows, &places, &lasts, cache)?;
        let mut recorded = None;
        if is_prepared && self.client.start_capture().is_ok() {
            // Errors of a launch appear when the graph is made.
            let launched = self.pass(rows, &places, &lasts, cache);
            let graph = self.client.stop_capture();
            launched?;
            recorded = graph.ok().map(|graph| Recorded { graph, places, lasts, _scratch: cache.scratch.clone() });
        }
        cache.recorded.insert(rows, recorded);
        Ok(())
    }

    /// Launches a forward pass.
    ///
    /// # Shapes
    /// - places: `[rows, PLACE]`
    /// - lasts: pairs of a last row and its sequence
    fn pass(&self, rows: usize, places: &TensorHandle, lasts: &TensorHandle, cache: &GpuCache) -> Result<(), ModelError> {
        let GpuCache { keys_values, kept, scratch, .. } = cache;
        let width = self.hidden_size;
        let view = |handle: &Handle, width: usize, element: ElemType| TensorHandle::new_contiguous([rows, width], handle.clone(), element);
        let (x, change) = (view(&scratch.x, width, F32), view(&scratch.change, width, F32));
        let normed = view(&scratch.normed, width, self.element);
        let cubes = CubeCount::Static(rows as u32, 1, 1);
        let units = CubeDim::new_1d(UNITS as u32);
        kernels::embed::launch(
            &self.client,
            cubes,
            units,
            self.embedding.as_ref().unwrap_or(&self.head.numbers).clone().into_arg(),
            places.clone().into_arg(),
            x.clone().into_arg(),
            width,
            self.embedding.is_none() && self.head.in_tiles,
            self.element,
        );
        let apply_norm = |norm: &GpuNorm, which: Normed, product: &Weight| self.norm(norm, [&x, &change, places], which, product, &normed);
        for (index, (layer, [keys, values])) in self.layers.iter().zip(keys_values.iter()).enumerate() {
            let which = if index == 0 { Normed::Rows } else { Normed::Changed };
            apply_norm(&layer.input_norm, which, &layer.qkv.weight);
            let qkv = view(&scratch.qkv, layer.shape.qkv_width(), F32);
            self.product(&normed, &layer.qkv.weight, &qkv)?;
            let queries = view(&scratch.queries, layer.shape.query_width(), F32);
            self.place_heads(layer, &qkv, places, [&queries, keys, values]);
            let attended = view(&scratch.attended, layer.shape.query_width(), self.element);
            self.attend(layer, &queries, [keys, values], places, &attended);
            self.apply(&layer.output, &attended, &change)?;
            apply_norm(&layer.mlp_norm, Normed::Changed, &layer.gate_up.weight);
            let gate_up = view(&scratch.gate_up, 2 * layer.inner(), F32);
            self.product(&normed, &layer.gate_up.weight, &gate_up)?;
            let activated = view(&scratch.activated, layer.inner(), self.element);
            self.swiglu(layer, &gate_up, &activated);
            self.apply(&layer.down, &activated, &change)?;
        }
        kernels::keep::launch(
            &self.client,
            CubeCount::Static((lasts.shape()[0] / 2) as u32, 1, 1),
            units,
            x.into_arg(),
            change.into_arg(),
            lasts.clone().into_arg(),
            kept.clone().into_arg(),
            width,
        );
        Ok(())
    }

    /// Samples a token behind each of the `sequences`, one number from 0 to less than 1 each, after
    /// the `changes` of logits, at most one of each logit.
    ///
    /// # Errors
    /// When the device cannot compute it.
    pub fn sample(
        &self,
        sequences: &[usize],
        uniforms: &[f32],
        sampling: GpuSampling,
        changes: &[GpuChange],
        cache: &GpuCache,
    ) -> Result<Vec<GpuSample>, ModelError> {
        let rows = sequences.len();
        if rows == 0 {
            return Ok(Vec::new());
        }
        let sources: Vec<i32> = sequences.iter().map(|&sequence| sequence as i32).collect();
        let normed = self.rows(rows, self.hidden_size, self.element);
        self.norm(&self.norm, [&cache.kept, &cache.kept, &self.integers(&sources)], Normed::Named, &self.head, &normed);
        let logits = self.rows(rows, self.vocab_size, F32);
        self.product(&normed, &self.head, &logits)?;
        let sampled = self.empty([rows, SAMPLED], F32);
        let vocabulary = sampling.vocabulary_size.min(self.vocab_size);
        let is_limited = (sampling.top_k > 0 && sampling.top_k < vocabulary) || sampling.top_p < 1.0 || sampling.min_p > 0.0;
        let choice = match sampling.temperature {
            None => Choice::Greedy,
            Some(_) if is_limited => Choice::Some,
            Some(_) => Choice::All,
        };
        let inverse_temperature = sampling.temperature.map_or(1.0, |temperature| (1.0 / temperature).min(f64::from(f32::MAX)) as f32);
        self.change(&logits, sampling, changes);
        kernels::sample::launch(
            &self.client,
            CubeCount::Static(rows as u32, 1, 1),
            CubeDim::new_1d(SAMPLERS as u32),
            logits.into_arg(),
            self.upload().numbers(uniforms).into_arg(),
            sampled.clone().into_arg(),
            self.vocab_size,
            vocabulary,
            inverse_temperature,
            sampling.top_p as f32,
            u32::try_from(sampling.top_k).unwrap_or(u32::MAX),
            sampling.min_p as f32,
            choice,
        );
        let bytes =
            self.client.read_one(sampled.handle).map_err(|error| ModelError::Device(format!("cannot read the sampled tokens: {error}")))?;
        let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
        let sampled = numbers.as_chunks().0.iter().map(|&[token, logprob, broken, logit]: &[f32; SAMPLED]| GpuSample {
            token: token as i32,
            logprob,
            broken: (broken >= 0.0).then_some((broken as usize, logit)),
        });
        Ok(sampled.collect())
    }

    /// Changes logits before tokens are drawn.
    fn change(&self, logits: &TensorHandle, sampling: GpuSampling, changes: &[GpuChange]) {
        let is_token = |change: &&GpuChange| usize::try_from(change.token).is_ok_and(|token| token < self.vocab_size);
        let entry = |change: &GpuChange| {
            let kind = i32::from(change.is_repeated) + 2 * i32::from(change.is_present) + 4 * i32::from(change.is_forbidden);
            [change.row as i32, change.token, kind]
        };
        let entries: Vec<i32> = changes.iter().filter(is_token).flat_map(entry).collect();
        let count = entries.len() / 3;
        if count == 0 {
            return;
        }
        kernels::change_logits::launch(
            &self.client,
            CubeCount::Static(count.div_ceil(UNITS) as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            logits.clone().into_arg(),
            self.integers(&entries).into_arg(),
            count,
            self.vocab_size,
            sampling.repetition_penalty as f32,
            sampling.presence_penalty as f32,
        );
    }

    fn integers(&self, values: &[i32]) -> TensorHandle {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        TensorHandle::new_contiguous([values.len()], self.client.create_from_slice(&bytes), I32)
    }

    fn upload(&self) -> Upload<'_> {
        Upload { client: &self.client, element: self.element }
    }
}

impl GpuCache {
    /// Whether it has so many positions, for so many sequences at once, and this thread may use it:
    /// work is ordered thread by thread.
    pub fn holds(&self, positions: usize, sequences: usize) -> bool {
        self.spare[0] >= positions && self.spare[1] >= sequences && self.thread == thread::current().id()
    }

    /// Begins a sequence of at most so many positions of its own, after those of `prefix`. The
    /// prefix must not grow any more. `None` when there is no room.
    pub fn open(&mut self, prefix: Option<usize>, positions: usize) -> Option<usize> {
        self.places.open(prefix, positions)
    }

    /// Whether a sequence of so many positions could begin.
    pub fn has_room(&self, positions: usize) -> bool {
        self.places.has_room(positions)
    }

    /// Ends a sequence. Sequences with this prefix may not be used any more.
    pub fn close(&mut self, sequence: usize) {
        self.places.close(sequence);
    }
}

impl Recorded {
    #[allow(unsafe_code)]
    fn replay(&self) -> Result<(), ModelError> {
        // SAFETY: the graph's buffers live: its places, lasts and scratch are held here, keys,
        // values and what is kept by the cache that holds this, and the weights by the decoder that
        // whoever calls has borrowed. All work on them is launched by one thread, on one stream.
        let replayed = unsafe { self.graph.replay() };
        replayed.map_err(|error| ModelError::Device(format!("cannot launch a recorded pass: {error}")))
    }
}
