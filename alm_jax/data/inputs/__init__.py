"""Audio and text in the forms in which people have them, read where they lie: no conversion.

A folder with a manifest, tar sets, Parquet files and plain folder trees each become a ``Listing``:
what is known of every record, and where its audio is. It is made once and mapped into memory.
"""
