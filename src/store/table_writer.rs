//! Writes a table part by part; a new process continues after the last committed part.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::manifest::{Manifest, Part, Site, as_index};
use super::name::check_key;
use super::parquet::Encoder;
use super::{Event, EventKind, OutputKey, OutputKind, Quarantined, RunLock, StoreError, files, parquet};
use crate::dag::fingerprint::Recipe;
use crate::tables::{InOrder, TableKind};

/// An unfinished table. Dropped, it leaves the committed parts for the next process.
#[derive(Debug)]
pub struct TableWriter<'a> {
    lock: &'a RunLock,
    key: OutputKey,
    folder: PathBuf,
    site: Site,
    manifest: Manifest,
    quarantined: Vec<Quarantined>,
    /// The start time of the current part.
    begun: Instant,
}

impl RunLock {
    /// Begins or resumes the table of `recipe` with this key.
    ///
    /// Part `k` covers the input rows `k * part_rows ..` of `input_rows`; the recipe must determine
    /// these rows. A resumed table continues with its first `part_rows`, so no part is lost.
    /// Committed parts, here or in the cache, are verified and stay. The output of another recipe
    /// is retired into the cache, finished or not.
    ///
    /// # Errors
    /// Files cannot be read, moved or written, or the key is a model's.
    pub fn write_table(
        &self,
        key: &OutputKey,
        recipe: &Recipe,
        table: Option<TableKind>,
        input_rows: usize,
        part_rows: usize,
    ) -> Result<TableWriter<'_>, StoreError> {
        check_key(key)?;
        if key.kind != OutputKind::Table {
            return Err(StoreError::Name { what: "table", name: key.to_string() });
        }
        let part_rows = part_rows.max(1);
        let mut fresh = Manifest::new(key, recipe);
        fresh.table = table;
        fresh.input_rows = input_rows as u64;
        fresh.part_rows = part_rows as u64;
        fresh.part_count = input_rows.div_ceil(part_rows).max(1) as u64;

        let mut quarantined = self.quarantine().verify(key)?;
        if self.manifest(key)?.is_none_or(|manifest| manifest.fingerprint != fresh.fingerprint) {
            self.cache().retire(key)?;
            if self.cache().take_back(key, &fresh.fingerprint)? {
                quarantined.extend(self.quarantine().verify(key)?);
            }
        }
        let folder = self.path(key);
        let site = self.site(key);
        let manifest = match self.manifest(key)? {
            Some(manifest) if has_same_input(&manifest, &fresh) => manifest,
            there => {
                if let Some(there) = there {
                    quarantined.push(self.refuse_other_input(key, &there, &fresh)?);
                }
                files::create_folder(&folder)?;
                fresh.write(&site, &self.temporary()?)?;
                fresh
            }
        };
        let writer = TableWriter { lock: self, key: key.clone(), folder, site, manifest, quarantined, begun: Instant::now() };
        writer.remove_unlisted()?;
        Ok(writer)
    }

    /// The same recipe with other input rows is a caller's mistake. The old parts are moved aside,
    /// not deleted.
    fn refuse_other_input(&self, key: &OutputKey, there: &Manifest, fresh: &Manifest) -> Result<Quarantined, StoreError> {
        let describe = |manifest: &Manifest| format!("{} input rows", manifest.input_rows);
        let path = self.path(key);
        self.site(key).take_in()?;
        let moved_to = self.quarantine().move_aside(&path, &key.word())?;
        let report = Quarantined { path, moved_to, expected: describe(fresh), found: describe(there) };
        self.quarantine().report(key, std::slice::from_ref(&report))?;
        Ok(report)
    }
}

impl<'a> TableWriter<'a> {
    /// The numbers of the parts still to be committed, ascending.
    pub fn missing(&self) -> Vec<usize> {
        self.manifest.missing()
    }

    /// The input rows of a part.
    pub fn rows_of(&self, part: usize) -> Range<usize> {
        self.manifest.rows_of(part)
    }

    /// A part for messages: `part-00002 of 5`, after its file name.
    pub fn name_of(&self, part: usize) -> String {
        format!("part-{part:05} of {}", self.manifest.part_count)
    }

    /// Parts of the finished table; at least one.
    pub fn part_count(&self) -> usize {
        as_index(self.manifest.part_count)
    }

    /// The rows of the committed parts, in order.
    ///
    /// # Errors
    /// A part cannot be read.
    pub fn committed(&self) -> Result<Vec<RecordBatch>, StoreError> {
        self.manifest.parts.iter().map(|part| parquet::decode(&self.folder.join(&part.file))).collect()
    }

    /// The rows of one part; `None` if it is not committed.
    ///
    /// # Errors
    /// The part cannot be read.
    pub fn committed_part(&self, part: usize) -> Result<Option<RecordBatch>, StoreError> {
        self.listed(part).map(|listed| parquet::decode(&self.folder.join(&listed.file))).transpose()
    }

    fn listed(&self, part: usize) -> Option<&Part> {
        self.manifest.parts.iter().find(|listed| listed.index == part as u64)
    }

    /// Damaged parts, found and moved aside at the begin; they are among the missing.
    pub fn quarantined(&self) -> &[Quarantined] {
        &self.quarantined
    }

    /// Commits a part durably.
    ///
    /// # Errors
    /// The part is not among the missing, the batch violates the table's rules, or files cannot be
    /// written.
    pub fn commit(&mut self, part: usize, batch: &RecordBatch) -> Result<(), StoreError> {
        let missing = self.missing();
        if !missing.contains(&part) {
            return Err(StoreError::Part { key: self.key.clone(), part, missing });
        }
        self.write(part, format!("part-{part:05}.parquet"), batch)
    }

    /// Begins a part of several batches, in the table's order ([`TableKind::order`]) if it has one.
    /// Memory does not grow with the rows. `schema` is the schema of the batches. `None` if the
    /// part is already committed.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn begin(&mut self, part: usize, schema: &Schema) -> Result<Option<PartWriter<'_, 'a>>, StoreError> {
        if !self.missing().contains(&part) {
            return Ok(None);
        }
        let in_order = self.manifest.table.map(InOrder::new);
        PartWriter::new(self, part, format!("part-{part:05}.parquet"), schema, in_order).map(Some)
    }

    /// Replaces the rows of a committed part, for example of failed requests. At every moment the
    /// old or the new part exists. A missing part is committed.
    ///
    /// # Errors
    /// As [`TableWriter::commit`].
    pub fn replace(&mut self, part: usize, batch: &RecordBatch) -> Result<(), StoreError> {
        let Some(old) = self.listed(part).map(|listed| listed.file.clone()) else { return self.commit(part, batch) };
        // The manifest decides between the two names; a committed file is never written again.
        let names = [format!("part-{part:05}.parquet"), format!("part-{part:05}-again.parquet")];
        let Some(free) = names.into_iter().find(|name| *name != old) else {
            return Err(StoreError::internal("TableWriter::replace", format!("both names of part {part} are {old}")));
        };
        self.write(part, free, batch)?;
        files::remove(&self.folder.join(old))
    }

    /// Writes a part to the new file `file` and lists it.
    fn write(&mut self, part: usize, file: String, batch: &RecordBatch) -> Result<(), StoreError> {
        if let Some(table) = self.manifest.table {
            table.check(batch).map_err(|source| StoreError::Table { path: self.folder.join(&file), source })?;
        }
        let mut writer = PartWriter::new(self, part, file, batch.schema_ref(), None)?;
        writer.write(batch)?;
        writer.commit().map(drop)
    }

    /// Marks the table as complete and shares it through the cache. `counts` go into the manifest.
    ///
    /// # Errors
    /// Parts are missing, or files cannot be written.
    pub fn finish(mut self, counts: BTreeMap<String, i64>) -> Result<Manifest, StoreError> {
        let done = self.manifest.parts.len() as u64;
        let of = self.manifest.part_count;
        if done != of {
            return Err(StoreError::Incomplete { key: self.key, done, of });
        }
        self.manifest.counts = counts;
        self.manifest.complete = true;
        self.lock.cache().publish(&self.key, &self.folder, &self.manifest)?;
        self.manifest.write(&self.site, &self.lock.temporary()?)?;
        Ok(self.manifest)
    }

    /// Removes parts outside the manifest, left by a kill between a part's rename and the
    /// manifest's.
    fn remove_unlisted(&self) -> Result<(), StoreError> {
        for path in files::list(&self.folder)? {
            let name = files::file_name(&path);
            let listed = self.manifest.listed().any(|listed| listed.file == name);
            if name.starts_with("part-") && name.ends_with(".parquet") && !listed {
                files::remove(&path)?;
            }
        }
        Ok(())
    }
}

/// An unfinished part. Dropped before the commit, it leaves nothing.
pub struct PartWriter<'w, 'a> {
    table: &'w mut TableWriter<'a>,
    part: usize,
    file: String,
    temporary: PathBuf,
    /// The temporary file; the encoder writes it.
    written: files::HashedFile,
    encoder: Encoder<files::HashedFile>,
    /// The checks of the rows; `None` if the caller has checked them.
    in_order: Option<InOrder>,
    rows: u64,
}

impl<'w, 'a> PartWriter<'w, 'a> {
    fn new(
        table: &'w mut TableWriter<'a>,
        part: usize,
        file: String,
        schema: &Schema,
        in_order: Option<InOrder>,
    ) -> Result<Self, StoreError> {
        let temporary = table.lock.temporary()?;
        let written = files::HashedFile::create(&temporary)?;
        let encoder = Encoder::for_part(written.clone(), schema, &table.manifest.fingerprint, part);
        let encoder = encoder.map_err(|error| parquet::cannot_write(&table.folder.join(&file), error))?;
        Ok(Self { table, part, file, temporary, written, encoder, in_order, rows: 0 })
    }

    fn path(&self) -> PathBuf {
        self.table.folder.join(&self.file)
    }

    /// Appends rows.
    ///
    /// # Errors
    /// The rows violate the table's rules or order, or cannot be written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        if let Some(in_order) = &mut self.in_order {
            in_order.check(batch).map_err(|source| StoreError::Table { path: self.table.folder.join(&self.file), source })?;
        }
        self.rows += batch.num_rows() as u64;
        self.encoder.write(batch).map_err(|error| parquet::cannot_write(&self.path(), error))
    }

    /// Commits the part durably. Returns its number of rows.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn commit(self) -> Result<u64, StoreError> {
        let path = self.path();
        let Self { table, part, file, temporary, written, encoder, rows, .. } = self;
        encoder.finish().map_err(|error| parquet::cannot_write(&path, error))?;
        let (bytes, hash) = written.sync()?;
        files::rename(&temporary, &path)?;
        let index = part as u64;
        let blake3 = hash.to_hex().to_string();
        let mut manifest = table.manifest.clone();
        manifest.parts.retain(|other| other.index != index);
        manifest.add(Part { index, file, rows, bytes, blake3 });
        manifest.write(&table.site, &table.lock.temporary()?)?;
        table.manifest = manifest;
        table.lock.remember(&table.folder, &table.manifest);
        let mut event = Event::new(EventKind::PartCommitted, &table.key.name, table.key.iteration);
        event.part = Some(index);
        event.rows = Some(rows);
        event.seconds = Some(table.begun.elapsed().as_secs_f64());
        table.begun = Instant::now();
        table.lock.record(event)?;
        Ok(rows)
    }
}

fn has_same_input(one: &Manifest, other: &Manifest) -> bool {
    (one.input_rows, one.table) == (other.input_rows, other.table)
}
