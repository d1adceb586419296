//! Tables in the order of their prompts, read side by side a slice of whole prompts at a time.
//!
//! A query that looks at no two prompts together gives the same rows slice by slice as over whole tables, but with little memory, with
//! what it works on in the processor's cache, and on several threads. Where the slices are cut depends on the rows alone; so the result,
//! to the last digit of a sum, is the same for any number of threads. Knows nothing of what is asked.

use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;

use super::{Rows, Session, StoreError};

/// The column that says which prompt a row is about.
const PROMPT_ID: &str = "prompt_id";

/// Rows of each table that are read before a slice is cut: so many that planning a query costs little, so few that they stay in the cache.
const SLICE_ROWS: usize = 1 << 17;

/// Tables whose rows come in the order of their `prompt_id` (Utf8).
#[derive(Default)]
pub struct Slices<'a> {
    tables: Vec<Table<'a>>,
}

/// The rows of one table, batch by batch.
type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch, StoreError>> + Send + 'a>;

/// The next rows of every table up to the end of a prompt, by the tables' names.
type Slice = Vec<(&'static str, Vec<RecordBatch>)>;

impl<'a> Slices<'a> {
    /// Adds the rows of a query as a table, which queries of the slices know as `name`.
    pub fn add(&mut self, name: &'static str, rows: Rows<'a>) {
        self.add_rows(name, rows.schema(), rows);
    }

    /// Adds rows with these columns as the table `name`.
    pub fn add_rows(
        &mut self,
        name: &'static str,
        schema: SchemaRef,
        rows: impl Iterator<Item = Result<RecordBatch, StoreError>> + Send + 'a,
    ) {
        let empty = RecordBatch::new_empty(schema);
        self.tables.push(Table { name, empty, rows: Box::new(rows), waiting: VecDeque::new(), waiting_rows: 0, last: None, prompts: 0 });
    }

    /// Asks as [`Self::query`] does; the answers are the table `name` of `session` while `read` runs, which reads it once.
    ///
    /// # Errors
    /// As for [`Self::query`], and what `read` fails with.
    pub fn feed<R, E: From<StoreError>>(
        self,
        text: &str,
        session: &Session,
        name: &str,
        read: impl FnOnce() -> Result<R, E>,
    ) -> Result<R, E> {
        let schema = self.schema_of(text)?;
        let (sender, receiver) = sync_channel(1);
        session.register_rows(name, schema.clone(), receiver)?;
        std::thread::scope(|scope| {
            let asked = scope.spawn(move || {
                self.query(text, &mut |batch| {
                    let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).map_err(|error| error.to_string());
                    let sent = batch.and_then(|batch| sender.send(batch).map_err(|_| "nobody reads on".to_string()));
                    sent.map_err(|problem| StoreError::Sql { message: format!("table {name}: {problem}") })
                })
            });
            let read = read();
            // So that nobody waits for a reader that is gone.
            let gone = session.deregister(name);
            // What ended too early may have ended the other, never without an error of its own.
            match (asked.join().unwrap_or_else(|panic| resume_unwind(panic)), read) {
                (_, Err(error)) => Err(error),
                (Err(error), Ok(_)) => Err(error.into()),
                (Ok(_), Ok(read)) => Ok(gone.map(|()| read)?),
            }
        })
    }

    /// The columns of what `text` says of a slice.
    fn schema_of(&self, text: &str) -> Result<SchemaRef, StoreError> {
        let session = Session::new()?;
        self.tables.iter().try_for_each(|table| session.register_batches(table.name, vec![table.empty.clone()]))?;
        session.schema_of(text)
    }

    /// Asks `text`, which must look at no two prompts together, of each slice; `each` is given what it says, in the order of the prompts.
    /// Gives how many prompts each table has.
    ///
    /// # Errors
    /// A table has a row without `prompt_id` or before its place, the query fails, or `each` does.
    pub fn query<E: From<StoreError> + Send>(
        mut self,
        text: &str,
        each: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<BTreeMap<&'static str, u64>, E> {
        let threads = rayon::current_num_threads();
        // Slices that are read, asked or waiting for one before them: as many as keep all threads busy.
        let (give_back, tickets) = channel();
        (0..2 * threads + 1).try_for_each(|_| give_back.send(())).ok();
        let (cut, slices) = sync_channel(1);
        let (answer, answers) = channel();
        // Gone with the last thread that asks, so that nobody waits for one.
        let slices = Arc::new(Mutex::new(slices));
        let tables = &mut self.tables;
        std::thread::scope(|scope| {
            let failed = answer.clone();
            scope.spawn(move || {
                if let Err(error) = cut_all(tables, &tickets, &cut) {
                    failed.send((usize::MAX, Err(error))).ok();
                }
            });
            for _ in 0..threads {
                let (slices, answer) = (slices.clone(), answer.clone());
                scope.spawn(move || answer_all(&slices, text, &answer));
            }
            drop((slices, answer));
            in_order(answers, give_back, each)
        })?;
        Ok(self.tables.iter().map(|table| (table.name, table.prompts)).collect())
    }
}

/// Cuts slices, each once there is a ticket for it, until the tables end or nobody wants them any more.
fn cut_all(tables: &mut [Table], tickets: &Receiver<()>, slices: &SyncSender<(usize, Slice)>) -> Result<(), StoreError> {
    let mut number = 0;
    while tickets.recv().is_ok() {
        let Some(slice) = cut(tables)? else { break };
        if slices.send((number, slice)).is_err() {
            break;
        }
        number += 1;
    }
    Ok(())
}

/// The next slice; `None` at the tables' end.
fn cut(tables: &mut [Table]) -> Result<Option<Slice>, StoreError> {
    for rows in (1..).map(|times: usize| times.saturating_mul(SLICE_ROWS)) {
        tables.iter_mut().try_for_each(|table| table.fill(rows))?;
        // What is before a prompt that every table has been read up to is complete.
        let end = tables.iter().filter_map(|table| table.prompt_of(rows - 1)).min().map(str::to_string);
        let slice: Slice = tables.iter_mut().map(|table| (table.name, table.take_before(end.as_deref()))).collect();
        if slice.iter().any(|(_, batches)| batches.iter().any(|batch| batch.num_rows() > 0)) {
            return Ok(Some(slice));
        }
        if end.is_none() {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Asks the query of slices until there are no more.
fn answer_all(slices: &Mutex<Receiver<(usize, Slice)>>, text: &str, answers: &Sender<(usize, Result<Vec<RecordBatch>, StoreError>)>) {
    let session = Session::new();
    loop {
        let next = slices.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, slice)) = next else { return };
        let answered = match &session {
            Ok(session) => answer(session, text, slice),
            Err(error) => Err(StoreError::Sql { message: error.to_string() }),
        };
        if answers.send((number, answered)).is_err() {
            return;
        }
    }
}

fn answer(session: &Session, text: &str, slice: Slice) -> Result<Vec<RecordBatch>, StoreError> {
    for (name, batches) in slice {
        session.deregister(name)?;
        session.register_batches(name, batches)?;
    }
    session.query(text)
}

/// Hands over the answers in the order of the slices; for each one that is handed over, another slice may be cut.
fn in_order<E: From<StoreError>>(
    answers: Receiver<(usize, Result<Vec<RecordBatch>, StoreError>)>,
    give_back: Sender<()>,
    each: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
) -> Result<(), E> {
    let (mut early, mut next) = (BTreeMap::new(), 0);
    for (number, answered) in answers {
        early.insert(number, answered?);
        while let Some(batches) = early.remove(&next) {
            batches.into_iter().try_for_each(&mut *each)?;
            next += 1;
            give_back.send(()).ok();
        }
    }
    Ok(())
}

/// One table as far as it is read.
struct Table<'a> {
    name: &'static str,
    empty: RecordBatch,
    rows: Batches<'a>,
    /// What is read and in no slice yet.
    waiting: VecDeque<RecordBatch>,
    waiting_rows: usize,
    /// The prompt of the last row that was read.
    last: Option<String>,
    prompts: u64,
}

impl Table<'_> {
    /// Reads on until so many rows wait, or to the end.
    fn fill(&mut self, rows: usize) -> Result<(), StoreError> {
        while self.waiting_rows < rows {
            let Some(batch) = self.rows.next().transpose()? else { break };
            self.look_at(&batch)?;
            self.waiting_rows += batch.num_rows();
            self.waiting.push_back(batch);
        }
        Ok(())
    }

    /// Checks the order of the next rows and counts their prompts.
    fn look_at(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let ids = prompt_ids(batch).filter(|ids| ids.null_count() == 0);
        let ids = ids.ok_or_else(|| self.wrong("expected a prompt_id (Utf8) in every row, found a row without".to_string()))?;
        for row in 0..ids.len() {
            let id = ids.value(row);
            let before = if row == 0 { self.last.as_deref() } else { Some(ids.value(row - 1)) };
            match before.map(|before| before.cmp(id)) {
                Some(std::cmp::Ordering::Equal) => {}
                Some(std::cmp::Ordering::Greater) => {
                    let before = before.unwrap_or_default();
                    return Err(self.wrong(format!("expected rows in the order of prompt_id, found {id} after {before}")));
                }
                _ => self.prompts += 1,
            }
        }
        if let Some(last) = ids.len().checked_sub(1) {
            self.last = Some(ids.value(last).to_string());
        }
        Ok(())
    }

    fn wrong(&self, problem: String) -> StoreError {
        StoreError::Sql { message: format!("table {}: {problem}", self.name) }
    }

    /// The prompt of one of the waiting rows.
    fn prompt_of(&self, mut row: usize) -> Option<&str> {
        for batch in &self.waiting {
            if row < batch.num_rows() {
                return prompt_ids(batch).map(|ids| ids.value(row));
            }
            row -= batch.num_rows();
        }
        None
    }

    /// The waiting rows of the prompts before `end`, or all of them; at least one batch, maybe without rows.
    fn take_before(&mut self, end: Option<&str>) -> Vec<RecordBatch> {
        let mut taken = vec![self.empty.clone()];
        while let Some(batch) = self.waiting.pop_front() {
            let count = match (end, prompt_ids(&batch)) {
                (Some(end), Some(ids)) => rows_before(ids, end),
                _ => batch.num_rows(),
            };
            self.waiting_rows -= count;
            if count == batch.num_rows() {
                taken.push(batch);
                continue;
            }
            taken.push(batch.slice(0, count));
            self.waiting.push_front(batch.slice(count, batch.num_rows() - count));
            break;
        }
        taken
    }
}

fn prompt_ids(batch: &RecordBatch) -> Option<&StringArray> {
    batch.column_by_name(PROMPT_ID)?.as_string_opt()
}

/// How many of these ids, which ascend, are before `end`.
fn rows_before(ids: &StringArray, end: &str) -> usize {
    let (mut low, mut high) = (0, ids.len());
    while low < high {
        let middle = low.midpoint(high);
        if ids.value(middle) < end { low = middle + 1 } else { high = middle }
    }
    low
}
