/* SPDX-License-Identifier: MIT */
#include "src/base/provenance.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/json.h"

/* json_string() refuses what is not UTF-8; a file name may be that. */
static json_t *any_string(const char *s)
{
    json_t *v = json_string(s);
    bool other = false;
    if (v)
        return v;
    char *copy = strdup(s);
    for (char *p = copy; p && *p; p++)
        if ((unsigned char)*p >= 0x80) {
            *p = '?';
            other = true;
        }
    v = other ? json_string(copy) : NULL; // otherwise memory was short
    free(copy);
    return v;
}

char *dm_provenance(int argc, char *const *argv, json_t *extra)
{
    json_t *command = json_array(), *root = json_object();
    int bad = json_object_set_new(root, "program", json_string("dynamo " DM_VERSION));
    for (int i = 0; i < argc; i++)
        bad |= json_array_append_new(command, any_string(argv[i]));
    bad |= json_object_set_new(root, "command", command);
    if (extra)
        bad |= json_object_update(root, extra);
    char *text = bad ? NULL : dm_json_text(root, JSON_COMPACT);
    json_decref(root);
    json_decref(extra);
    return text;
}

enum dm_status dm_provenance_hashed(json_t *inputs, const char *path, const char *hex,
                                    struct dm_err *e)
{
    const char *slash = strrchr(path, '/');
    json_t *v = json_object();
    int bad = json_object_set_new(v, "path", any_string(slash ? slash + 1 : path));
    bad |= json_object_set_new(v, "sha256", json_string(hex));
    bad |= json_array_append_new(inputs, v);
    return bad ? dm_fail(e, DM_ENOMEM, "%s: out of memory", path) : DM_OK;
}

enum dm_status dm_provenance_input(json_t *inputs, const char *path, struct dm_err *e)
{
    char hex[DM_HASH_LEN + 1];
    DM_TRY(dm_sha256_file(path, hex, e));
    return dm_provenance_hashed(inputs, path, hex, e);
}
