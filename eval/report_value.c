/* SPDX-License-Identifier: MIT */
/* report_value.c - values that may lack anything, and their form as tables. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "eval/report_impl.h"

enum { MAX_DEPTH = 6, MAX_ROWS = 400, MAX_INLINE = 24, MAX_COLUMNS = 16 };

const json_t *dm_rep_at(const json_t *o, const char *path)
{
    char key[64];
    while (o) {
        const size_t n = strcspn(path, ".");
        if (n >= sizeof(key))
            return NULL;
        memcpy(key, path, n);
        key[n] = '\0';
        o = json_object_get(o, key);
        if (!path[n])
            return o;
        path += n + 1;
    }
    return NULL;
}

double dm_rep_number(const json_t *o, const char *path)
{
    const json_t *v = dm_rep_at(o, path);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *dm_rep_string(const json_t *o, const char *path)
{
    return json_string_value(dm_rep_at(o, path));
}

void dm_rep_table(struct dm_page *p, const char *caption, const char *const *head)
{
    dm_page_raw(p, "<div class=\"scroll\" tabindex=\"0\"><table>\n");
    if (caption)
        dm_page_element(p, "caption", "%s", caption);
    dm_page_raw(p, "<thead><tr>");
    for (size_t i = 0; head[i]; i++)
        if (head[i][0] == '#')
            dm_page_element(p, "th scope=\"col\" class=\"n\"", "%s", head[i] + 1);
        else
            dm_page_element(p, "th scope=\"col\"", "%s", head[i]);
    dm_page_raw(p, "</tr></thead><tbody>\n");
}

void dm_rep_table_end(struct dm_page *p)
{
    dm_page_raw(p, "</tbody></table></div>\n");
}

/* ---- Any value ---------------------------------------------------------------------------------
 */

static bool is_scalar(const json_t *v)
{
    return !json_is_object(v) && !json_is_array(v);
}

static void put_scalar(struct dm_page *p, const json_t *v)
{
    char text[40];
    if (json_is_string(v))
        dm_page_text(p, "%s", json_string_value(v));
    else if (json_is_integer(v))
        dm_page_text(p, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v)) {
        dm_page_figure(text, json_real_value(v), 6);
        dm_page_text(p, "%s", text);
    } else
        dm_page_text(p, "%s", json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "none");
}

/* An array in one line; a command is what it is: words that a shell would take. */
static void put_line(struct dm_page *p, const json_t *a)
{
    size_t i;
    json_t *v;
    bool words = json_array_size(a) > 0;
    json_array_foreach(a, i, v) words = words && json_is_string(v);
    json_array_foreach(a, i, v)
    {
        if (i)
            dm_page_text(p, words ? " " : ", ");
        if (i == (size_t)(words ? 400 : MAX_INLINE)) {
            dm_page_text(p, "... (%zu more)", json_array_size(a) - i);
            break;
        }
        if (is_scalar(v))
            put_scalar(p, v);
        else
            dm_page_text(p, "...");
    }
}

/* The keys of all rows in the order of their first appearance; scalars and arrays of scalars only.
 */
static size_t columns_of(const json_t *rows, const char **name)
{
    size_t n = 0, i;
    json_t *row, *v;
    const char *key;
    json_array_foreach(rows, i, row) json_object_foreach(row, key, v)
    {
        bool have = json_is_object(v);
        for (size_t c = 0; c < n && !have; c++)
            have = !strcmp(name[c], key);
        if (!have && n < MAX_COLUMNS)
            name[n++] = key;
    }
    return n;
}

static bool is_column_of_numbers(const json_t *rows, const char *key)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const json_t *v = json_object_get(row, key);
        if (v && !json_is_number(v) && !json_is_null(v))
            return false;
    }
    return true;
}

static void put_cell(struct dm_page *p, const json_t *v, bool number)
{
    dm_page_raw(p, number ? "<td class=\"n\">" : json_is_array(v) ? "<td class=\"wide\">" : "<td>");
    if (json_is_array(v))
        put_line(p, v);
    else if (json_is_real(v) || json_is_integer(v)) {
        char text[40];
        dm_page_figure(text, json_number_value(v), 5);
        dm_page_text(p, "%s", text);
    } else if (v)
        put_scalar(p, v);
    dm_page_raw(p, "</td>");
}

static void put_rows(struct dm_page *p, const json_t *rows, const char *caption)
{
    const char *name[MAX_COLUMNS];
    const size_t n = columns_of(rows, name);
    bool number[MAX_COLUMNS];
    size_t i;
    json_t *row;
    dm_page_raw(p, "<div class=\"scroll\" tabindex=\"0\"><table>");
    if (caption)
        dm_page_element(p, "caption", "%s", caption);
    dm_page_raw(p, "<thead><tr>");
    for (size_t c = 0; c < n; c++) {
        number[c] = is_column_of_numbers(rows, name[c]);
        dm_page_element(p, number[c] ? "th scope=\"col\" class=\"n\"" : "th scope=\"col\"", "%s",
                        name[c]);
    }
    dm_page_raw(p, "</tr></thead><tbody>\n");
    json_array_foreach(rows, i, row)
    {
        if (i == MAX_ROWS)
            break;
        dm_page_raw(p, "<tr>");
        for (size_t c = 0; c < n; c++)
            put_cell(p, json_object_get(row, name[c]), number[c]);
        dm_page_raw(p, "</tr>\n");
    }
    dm_rep_table_end(p);
    if (json_array_size(rows) > MAX_ROWS)
        dm_page_element(p, "p", "%zu more rows.", json_array_size(rows) - MAX_ROWS);
}

static bool are_rows(const json_t *v)
{
    size_t i;
    json_t *row;
    json_array_foreach(v, i, row) if (!json_is_object(row)) return false;
    return json_array_size(v) > 0;
}

/* Scalars and lines below o as rows of a table that is open; a row's name is the path to it. */
static void put_pairs(struct dm_page *p, const json_t *o, const char *path, int depth)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        char name[256];
        snprintf(name, sizeof(name), "%.190s%s%.60s", path, *path ? "." : "", key);
        if (json_is_object(v) && depth < MAX_DEPTH) {
            put_pairs(p, v, name, depth + 1);
        } else if (!json_is_object(v) && !are_rows(v)) {
            dm_page_raw(p, "<tr>");
            dm_page_element(p, "th scope=\"row\"", "%s", name);
            put_cell(p, v, false);
            dm_page_raw(p, "</tr>\n");
        }
    }
}

/* Arrays of objects below o as tables of their own. */
static void put_tables(struct dm_page *p, const json_t *o, const char *path, int depth)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        char name[256];
        snprintf(name, sizeof(name), "%.190s%s%.60s", path, *path ? "." : "", key);
        if (json_is_object(v) && depth < MAX_DEPTH)
            put_tables(p, v, name, depth + 1);
        else if (are_rows(v))
            put_rows(p, v, name);
    }
}

static void put_object(struct dm_page *p, const json_t *o, const char *caption)
{
    dm_page_raw(p, "<div class=\"scroll\" tabindex=\"0\"><table class=\"pairs\">");
    if (caption)
        dm_page_element(p, "caption", "%s", caption);
    dm_page_raw(p, "<tbody>\n");
    put_pairs(p, o, "", 0);
    dm_rep_table_end(p);
    put_tables(p, o, "", 0);
}

void dm_rep_value(struct dm_page *p, const json_t *v, const char *caption)
{
    if (json_is_object(v)) {
        put_object(p, v, caption);
    } else if (are_rows(v)) {
        put_rows(p, v, caption);
    } else {
        dm_page_raw(p, "<p>");
        if (caption)
            dm_page_text(p, "%s: ", caption);
        if (json_is_array(v))
            put_line(p, v);
        else
            put_scalar(p, v);
        dm_page_raw(p, "</p>\n");
    }
}

void dm_rep_line(struct dm_page *p, const json_t *a)
{
    put_line(p, a);
}
