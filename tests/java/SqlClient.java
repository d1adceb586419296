// Asks `optune sql RUN --serve` with PgJDBC: DatabaseMetaData, parameters of each type, a thousand rows.
//
//     java -cp postgresql.jar tests/java/SqlClient.java jdbc:postgresql://127.0.0.1:PORT/RUN
//
// Fails at the first difference. Knows nothing of optune but the table `prompts` and the views of a finished run.

import java.math.BigDecimal;
import java.sql.*;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

class SqlClient {
    static void check(boolean right, String what) {
        if (!right) {
            throw new AssertionError(what);
        }
    }

    /** The values of a column. */
    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) {
            values.add(rows.getString(name));
        }
        rows.close();
        return values;
    }

    interface Ask {
        ResultSet ask() throws SQLException;
    }

    /** The number of rows of a question, which must be answered. */
    static int count(String what, Ask question) {
        try (ResultSet rows = question.ask()) {
            int count = 0;
            while (rows.next()) {
                count++;
            }
            return count;
        } catch (SQLException error) {
            throw new AssertionError(what + ": " + error.getMessage(), error);
        }
    }

    static void metadata(DatabaseMetaData about) throws SQLException {
        check(about.getDatabaseProductName().equals("PostgreSQL") && about.getDatabaseMajorVersion() >= 12, "product");
        check(column(about.getSchemas(), "TABLE_SCHEM").contains("public"), "schemas");
        count("catalogs", about::getCatalogs);
        List<String> tables = column(about.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME");
        check(tables.contains("prompts") && tables.contains("journal") && !tables.contains("reward_by_iteration"), "tables: " + tables);
        List<String> views = column(about.getTables(null, "public", "%", new String[] {"VIEW"}), "TABLE_NAME");
        check(views.contains("reward_by_iteration"), "views: " + views);
        check(column(about.getTables(null, null, "prompt_", null), "TABLE_NAME").equals(List.of("prompts")), "a pattern");
        check(column(about.getTableTypes(), "TABLE_TYPE").contains("VIEW"), "types of tables");
        ResultSet columns = about.getColumns(null, "public", "prompts", null);
        check(columns.next() && columns.getString("COLUMN_NAME").equals("prompt_id"), "the first column");
        check(columns.getInt("DATA_TYPE") == Types.VARCHAR && columns.getString("TYPE_NAME").equals("text"), "its type");
        columns.close();
        check(column(about.getColumns(null, null, "rewards", "reward"), "TYPE_NAME").equals(List.of("float8")), "a column");
        check(count("types", about::getTypeInfo) > 20, "types");
        check(count("primary keys", () -> about.getPrimaryKeys(null, "public", "prompts")) == 0, "primary keys");
        check(count("imported keys", () -> about.getImportedKeys(null, "public", "prompts")) == 0, "imported keys");
        check(count("exported keys", () -> about.getExportedKeys(null, "public", "prompts")) == 0, "exported keys");
        check(count("cross reference", () -> about.getCrossReference(null, "public", "prompts", null, "public", "pairs")) == 0, "cross reference");
        check(count("indexes", () -> about.getIndexInfo(null, "public", "prompts", false, false)) == 0, "indexes");
        check(count("functions", () -> about.getFunctions(null, "public", "%")) == 0, "functions");
        check(count("procedures", () -> about.getProcedures(null, "public", "%")) == 0, "procedures");
        check(count("user types", () -> about.getUDTs(null, "public", "%", null)) == 0, "user types");
        count("table privileges", () -> about.getTablePrivileges(null, "public", "prompts"));
        count("column privileges", () -> about.getColumnPrivileges(null, "public", "prompts", "%"));
        count("best row", () -> about.getBestRowIdentifier(null, "public", "prompts", 0, true));
        count("client properties", about::getClientInfoProperties);
        check(about.getSQLKeywords() != null && about.getMaxColumnNameLength() > 0 && about.getUserName() != null, "words");
    }

    static void parameter(Connection connection, String kind, Object value, Object expected) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SELECT CAST(? AS " + kind + ") AS value")) {
            // More often than the threshold, from which PgJDBC sends and reads the binary form.
            for (int time = 0; time < 8; time++) {
                if (value instanceof byte[]) {
                    statement.setBytes(1, (byte[]) value);
                } else {
                    statement.setObject(1, value);
                }
                try (ResultSet rows = statement.executeQuery()) {
                    check(rows.next(), kind);
                    Object found = expected instanceof LocalDate ? rows.getObject(1, LocalDate.class)
                        : expected instanceof LocalDateTime ? rows.getObject(1, LocalDateTime.class)
                        : expected instanceof OffsetDateTime ? rows.getObject(1, OffsetDateTime.class) : rows.getObject(1);
                    boolean same = expected instanceof byte[] ? Arrays.equals((byte[]) expected, (byte[]) found) : expected.equals(found);
                    check(same, kind + ": " + found + ", not " + expected);
                }
            }
            statement.setObject(1, null);
            try (ResultSet rows = statement.executeQuery()) {
                check(rows.next() && rows.getObject(1) == null, kind + " null");
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(arguments[0], "any", "")) {
            metadata(connection.getMetaData());
            parameter(connection, "boolean", true, true);
            parameter(connection, "smallint", (short) 7, 7);
            parameter(connection, "integer", -70000, -70000);
            parameter(connection, "bigint", 7_000_000_000L, 7_000_000_000L);
            parameter(connection, "real", 0.25f, 0.25f);
            parameter(connection, "double precision", 1.0 / 3.0, 1.0 / 3.0);
            parameter(connection, "numeric(12, 4)", new BigDecimal("-12345.6789"), new BigDecimal("-12345.6789"));
            parameter(connection, "text", "it's ü \\", "it's ü \\");
            parameter(connection, "date", LocalDate.of(2026, 2, 28), LocalDate.of(2026, 2, 28));
            LocalDateTime time = LocalDateTime.of(2026, 2, 28, 1, 2, 3, 456_789_000);
            parameter(connection, "timestamp", time, time);
            parameter(connection, "timestamptz", time.atOffset(ZoneOffset.UTC), time.atOffset(ZoneOffset.UTC));
            parameter(connection, "bytea", new byte[] {0, -1, 39}, new byte[] {0, -1, 39});
            try (PreparedStatement statement = connection.prepareStatement("SELECT count(*) FROM prompts WHERE prompt_id = ANY(?)")) {
                statement.setArray(1, connection.createArrayOf("text", new Object[] {"p-001", "p-002"}));
                ResultSet rows = statement.executeQuery();
                check(rows.next() && rows.getInt(1) == 2, "a list");
            }
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(100);
                ResultSet rows = statement.executeQuery("SELECT value, 'row ' || value AS name FROM generate_series(1, 1000) ORDER BY value");
                int count = 0;
                while (rows.next()) {
                    count++;
                    check(rows.getInt(1) == count && rows.getString("name").equals("row " + count), "row " + count);
                }
                check(count == 1000, count + " rows");
                rows.close();
            }
            connection.commit();
            check(connection.isValid(5) && connection.getSchema().equals("public") && connection.getCatalog() != null, "valid");
            try (Statement statement = connection.createStatement()) {
                statement.executeQuery("SELECT * FROM promts");
                throw new AssertionError("an unknown table was read");
            } catch (SQLException error) {
                check(error.getMessage().contains("did you mean"), error.getMessage());
            }
        }
        System.out.println("PgJDBC: right");
    }
}
